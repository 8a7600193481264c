"""ResNet-200 on ImageNet, a baseline of the paper (table 7).

    python main.py --config=configs/imagenet_resnet200.py --workdir=runs/resnet200

The paper cites 20.1 % top-1 and 4.8 % top-5 error, one crop of 320.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import imagenet


def get_config() -> ConfigDict:
    """The run."""
    config = imagenet.get_config()
    config.model.name = "resnet200"
    # Classifier at 224 and tested at 320, the whole shorter side (He et al. 2016, table 5).
    config.dataset.eval_image_size = 320
    config.dataset.eval_crop_fraction = 1.0
    return config
