"""ResNet-1001 on CIFAR-10, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar10_resnet1001.py --workdir=runs/cifar10_resnet1001

The paper cites a test error of 4.64 % (table 6). 10,327,706 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "resnet1001_cifar"
    return config
