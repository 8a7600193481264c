"""A small attention network on handwritten digits: the first thing to run (`make demo`).

    python main.py --config=configs/digits.py --workdir=runs/digits

scikit-learn's bundled digits: 1,437 training and 360 test images of 8x8 pixels, no download.
All three stages, on maps of 8x8, 4x4 and 2x2, with the paper's 3, 2 and 1 poolings in the masks.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "digits"
    config.augmentation.crop_padding = 1  # an eighth of the image, as 4 pixels are of CIFAR's
    config.augmentation.flip = False  # a mirrored digit is no digit

    config.model.name = "attention56_cifar"
    config.model.widths = (32, 64, 128)

    config.num_train_steps = 600
    config.optimizer.boundaries = (400, 525)
    config.log_every_steps = 20
    config.eval_every_steps = 100
    config.checkpoint_every_steps = 100
    return config
