"""Attention-92 on CIFAR-100, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar100_attention92.py --workdir=runs/cifar100_attention92

The paper's test error: 21.71 % (table 6). 1,864,372 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar100"
    config.model.name = "attention92_cifar"
    return config
