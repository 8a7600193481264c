"""ResNet-164 on CIFAR-10 with 50 % wrong training labels (section 4.1, table 5).

    python main.py --config=configs/cifar10_noise50_resnet164.py --workdir=runs/noise50_resnet164

The paper's test error: 8.35 %. Wrong labels are spread evenly over the other nine classes.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import cifar10_resnet164


def get_config() -> ConfigDict:
    """The run."""
    config = cifar10_resnet164.get_config()
    config.dataset.label_noise.clean_ratio = 0.5
    return config
