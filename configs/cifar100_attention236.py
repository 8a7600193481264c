"""Attention-236 on CIFAR-100, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar100_attention236.py --workdir=runs/cifar100_attention236

The paper's test error: 21.16 % (table 6). 5,107,892 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar100"
    config.model.name = "attention236_cifar"
    return config
