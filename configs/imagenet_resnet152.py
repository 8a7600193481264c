"""ResNet-152 on ImageNet, a baseline of the paper (table 7).

    python main.py --config=configs/imagenet_resnet152.py --workdir=runs/resnet152

The paper cites 22.16 % top-1 and 6.16 % top-5 error, one crop of 224.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import imagenet


def get_config() -> ConfigDict:
    """The run."""
    config = imagenet.get_config()
    config.model.name = "resnet152"
    return config
