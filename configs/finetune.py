"""A trained network on your own images: its weights are where training begins.

    rattn train --config=finetune --data=photos --workdir=runs/photos

It begins with the package's network for CIFAR-10, which sees images of 32x32 pixels, or with the
run or the pretrained network that `--config.init_from` names. Network, normalization and image size
are those of that one. The recipe is a common one and was not tuned on any dataset. With few images,
--config.freeze="('stem','stage1')" trains less of the network.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import folder


def get_config() -> ConfigDict:
    """The run."""
    config = folder.get_config()
    config.init_from = "attention56_cifar10"
    config.model.name = ""  # that of `init_from`, as the next two
    config.normalization = ""
    config.dataset.image_size = None
    config.dataset.eval_crop_fraction = 1.0
    config.augmentation.resized_crop_area = (0.5, 1.0)

    config.num_epochs = 20.0
    config.optimizer.learning_rate = 0.01
    return config
