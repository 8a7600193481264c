"""ResNet-164 on CIFAR-10 with 70 % wrong training labels (section 4.1, table 5).

    python main.py --config=configs/cifar10_noise70_resnet164.py --workdir=runs/noise70_resnet164

The paper's test error: 17.21 %. Wrong labels are spread evenly over the other nine classes.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import cifar10_resnet164


def get_config() -> ConfigDict:
    """The run."""
    config = cifar10_resnet164.get_config()
    config.dataset.label_noise.clean_ratio = 0.3
    return config
