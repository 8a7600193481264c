"""Inception-ResNet-v2 on ImageNet, a baseline of the paper (table 7).

    python main.py --config=configs/imagenet_inception_resnet_v2.py --workdir=runs/inception_v2

The paper cites 19.9 % top-1 and 4.9 % top-5 error, one crop of 299.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import imagenet


def get_config() -> ConfigDict:
    """The run."""
    config = imagenet.get_config()
    config.model.name = "inception_resnet_v2"
    config.dataset.image_size = 299  # of training, too: the network is made for it
    return config
