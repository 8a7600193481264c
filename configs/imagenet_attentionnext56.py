"""AttentionNeXt-56 on ImageNet, the paper's recipe (section 4.2).

    python main.py --config=configs/imagenet_attentionnext56.py --workdir=runs/attentionnext56

The paper's errors on the non-blacklisted validation images, one crop of 224: 21.2 % top 1, 5.6 %
top 5 (table 7).
"""

from ml_collections import ConfigDict

from rattn_jax.configs import imagenet


def get_config() -> ConfigDict:
    """The run."""
    config = imagenet.get_config()
    config.model.name = "attentionnext56"
    return config
