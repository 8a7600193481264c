"""Attention-56 on CIFAR-100, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar100_attention56.py --workdir=runs/cifar100_attention56

The paper gives no error for this network on this dataset. 1,053,492 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar100"
    config.model.name = "attention56_cifar"
    return config
