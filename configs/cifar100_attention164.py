"""Attention-164 on CIFAR-100, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar100_attention164.py --workdir=runs/cifar100_attention164

The paper gives no error for this network on this dataset. 3,486,132 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar100"
    config.model.name = "attention164_cifar"
    return config
