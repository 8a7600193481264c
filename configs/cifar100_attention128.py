"""Attention-128 on CIFAR-100, the paper's recipe (section 4.1).

    python main.py --config=configs/cifar100_attention128.py --workdir=runs/cifar100_attention128

The paper gives no error for this network on this dataset. 2,675,252 parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar100"
    config.model.name = "attention128_cifar"
    return config
