"""Wide ResNet 16-8 on CIFAR-10, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar10_wrn16_8.py --workdir=runs/cifar10_wrn16_8

The paper cites a test error of 4.81 % (table 6). 10,961,370 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "wrn16_8_cifar"
    return config
