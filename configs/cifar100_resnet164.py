"""ResNet-164 on CIFAR-100, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar100_resnet164.py --workdir=runs/cifar100_resnet164

The paper cites a test error of 24.33 % (table 6). 1,726,388 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar100"
    config.model.name = "resnet164_cifar"
    return config
