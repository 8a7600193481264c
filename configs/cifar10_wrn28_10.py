"""Wide ResNet 28-10 on CIFAR-10, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar10_wrn28_10.py --workdir=runs/cifar10_wrn28_10

The paper cites a test error of 4.17 % (table 6). 36,479,194 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "wrn28_10_cifar"
    return config
