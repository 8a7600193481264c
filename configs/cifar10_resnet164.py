"""ResNet-164 on CIFAR-10, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar10_resnet164.py --workdir=runs/cifar10_resnet164

The paper cites a test error of 5.46 % (table 6). 1,703,258 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "resnet164_cifar"
    return config
