"""Attention-236 on CIFAR-10, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar10_attention236.py --workdir=runs/cifar10_attention236

The paper's test error: 4.14 % (table 6). 5,084,762 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "attention236_cifar"
    return config
