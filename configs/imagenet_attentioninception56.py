"""AttentionInception-56 on ImageNet, the paper's recipe (section 4.2).

    python main.py --config=configs/imagenet_attentioninception56.py --workdir=runs/inception56

The paper's errors on the non-blacklisted validation images, one crop of 299: 20.36 % top 1, 5.29 %
top 5 (table 7).
"""

from ml_collections import ConfigDict

from rattn_jax.configs import imagenet


def get_config() -> ConfigDict:
    """The run."""
    config = imagenet.get_config()
    config.model.name = "attentioninception56"
    config.dataset.image_size = 299  # of training, too: the network is made for it
    return config
