"""Attention-164 on CIFAR-10, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar10_attention164.py --workdir=runs/cifar10_attention164

The paper's test error: 4.31 % (table 3). 3,463,002 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "attention164_cifar"
    return config
