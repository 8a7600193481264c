"""Attention-92 on CIFAR-10 with 50 % wrong training labels (section 4.1, table 5).

    python main.py --config=configs/cifar10_noise50_attention92.py --workdir=runs/noise50

The paper's test error: 7.27 %. Wrong labels are spread evenly over the other nine classes.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import cifar10_attention92


def get_config() -> ConfigDict:
    """The run."""
    config = cifar10_attention92.get_config()
    config.dataset.label_noise.clean_ratio = 0.5
    return config
