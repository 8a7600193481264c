"""The paper's recipe for ImageNet (section 4.2): where the `imagenet_*` runs start.

    python main.py --config=configs/imagenet.py --workdir=runs/imagenet

Reads TFDS's `imagenet2012`, prepared as array_record in `data_dir`. The paper evaluates the
validation images that are not on ILSVRC's blacklist; its development kit has the list:
`--config.dataset.test_exclude_file=ILSVRC2015_clsloc_validation_blacklist.txt`.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default


def get_config() -> ConfigDict:
    """The recipe."""
    config = default.get_config()
    config.model.name = "attention56"

    config.dataset.name = "imagenet2012"
    config.dataset.test_split = "validation"  # TFDS's "test" has no labels
    config.dataset.eval_crop_fraction = 0.875  # 224 out of 256
    config.dataset.max_resident_bytes = 0  # streams at any size: crops are cut from whole images
    config.normalization = "imagenet"

    config.augmentation.resized_crop_area = (0.08, 1.0)  # of the area (Szegedy et al. 2015)
    config.augmentation.crop_padding = 0
    config.augmentation.lighting = 0.1  # (Krizhevsky et al. 2012)

    # The paper gives no batch size and no weight decay; the authors say at least 32 images a GPU.
    # 530,000 updates of 256 are 106 epochs.
    config.batch_size = 256
    config.num_train_steps = 530_000  # (paper)
    config.optimizer.boundaries = (200_000, 400_000, 500_000)  # (paper)
    config.optimizer.nesterov = False  # (paper)
    config.optimizer.weight_decay = 1e-4
    config.eval_every_steps = 10_000
    config.checkpoint_every_steps = 5_000
    return config
