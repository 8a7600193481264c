"""Attention-56 on your own images, from a few hundred to 100,000: class folders, table or shards.

    rattn train --config=folder --data=photos --workdir=runs/photos

For photos, at 224 pixels. For small pictures, and on a CPU, take the network for CIFAR:
--config.model.name=attention56_cifar --config.dataset.image_size=32. The recipe is a common one and
was not tuned on any dataset.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = ""  # --data
    config.dataset.image_size = 224
    config.dataset.eval_crop_fraction = 0.875
    config.model.name = "attention56"

    config.batch_size = 32
    config.num_epochs = 60.0
    config.eval_every_epochs = 1.0
    config.checkpoint_every_steps = 500
    config.log_every_steps = 20
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.learning_rate = 0.05
    config.optimizer.decay_norm_and_bias = False

    config.normalization = "imagenet"
    config.augmentation.resized_crop_area = (0.25, 1.0)
    config.augmentation.crop_padding = 0
    config.augmentation.trivial_augment = True
    config.label_smoothing = 0.1
    return config
