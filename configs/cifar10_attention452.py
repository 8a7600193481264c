"""Attention-452 on CIFAR-10, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar10_attention452.py --workdir=runs/cifar10_attention452

The paper's test error: 3.90 % (table 6). 10,181,210 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "attention452_cifar"
    config.model.scan_modules = True  # to the first step in a third of the time
    config.model.remat = True  # False: 3/4 of the time a step on CPU, 11 GB kept
    return config
