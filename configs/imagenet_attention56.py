"""Attention-56 on ImageNet, the paper's recipe (section 4.2).

    python main.py --config=configs/imagenet_attention56.py --workdir=runs/attention56

The paper's errors on the non-blacklisted validation images, one crop of 224: 21.76 % top 1, 5.9 %
top 5 (table 7). 31.9 M parameters.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import imagenet


def get_config() -> ConfigDict:
    """The run."""
    config = imagenet.get_config()
    config.model.name = "attention56"
    return config
