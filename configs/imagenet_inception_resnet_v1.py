"""Inception-ResNet-v1 on ImageNet, a baseline of the paper (table 7).

    python main.py --config=configs/imagenet_inception_resnet_v1.py --workdir=runs/inception_v1

The paper cites 21.3 % top-1 and 5.5 % top-5 error, one crop of 299.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import imagenet


def get_config() -> ConfigDict:
    """The run."""
    config = imagenet.get_config()
    config.model.name = "inception_resnet_v1"
    config.dataset.image_size = 299  # of training, too: the network is made for it
    return config
