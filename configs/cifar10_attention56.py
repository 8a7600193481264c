"""Attention-56 on CIFAR-10, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar10_attention56.py --workdir=runs/cifar10_attention56

The paper's test error: 5.52 % (table 3). 1,030,362 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "attention56_cifar"
    return config
