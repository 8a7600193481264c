"""ResNet-1001 on CIFAR-100, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar100_resnet1001.py --workdir=runs/cifar100_resnet1001

The paper cites a test error of 22.71 % (table 6). 10,350,836 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar100"
    config.model.name = "resnet1001_cifar"
    return config
