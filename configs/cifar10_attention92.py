"""Attention-92 on CIFAR-10, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar10_attention92.py --workdir=runs/cifar10_attention92

The paper's test error: 4.99 % (table 6). 1,841,242 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "attention92_cifar"
    return config
