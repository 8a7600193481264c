"""Wide ResNet 28-10 on CIFAR-100, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar100_wrn28_10.py --workdir=runs/cifar100_wrn28_10

The paper cites a test error of 20.50 % (table 6). 36,536,884 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar100"
    config.model.name = "wrn28_10_cifar"
    return config
