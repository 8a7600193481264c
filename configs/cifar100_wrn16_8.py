"""Wide ResNet 16-8 on CIFAR-100, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar100_wrn16_8.py --workdir=runs/cifar100_wrn16_8

The paper cites a test error of 22.07 % (table 6). 11,007,540 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar100"
    config.model.name = "wrn16_8_cifar"
    return config
