"""ResNeXt-101 on ImageNet, a baseline of the paper (table 7).

    python main.py --config=configs/imagenet_resnext101.py --workdir=runs/resnext101

The paper cites 21.2 % top-1 and 5.6 % top-5 error, one crop of 224.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import imagenet


def get_config() -> ConfigDict:
    """The run."""
    config = imagenet.get_config()
    config.model.name = "resnext101"
    return config
