"""Attention-56 on CIFAR-10 with the recipe of `cifar10_attention92_modern`.

    python main.py --config=configs/cifar10_attention56_modern.py --workdir=runs/modern56

A port with 7 to 12 times the parameters reached 3.53 % in a single run with mixup of alpha 1
(haoxintong/ResidualAttentionNetwork-Gluon, a4b13d9, batches of 512). Not yet run here.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import cifar10_attention92_modern


def get_config() -> ConfigDict:
    """The run."""
    config = cifar10_attention92_modern.get_config()
    config.model.name = "attention56_cifar"
    return config
