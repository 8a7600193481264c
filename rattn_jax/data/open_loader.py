"""Opens the loader of a run: resident if the dataset fits on the device, otherwise streamed.

loader = open_loader(config, dataset, image_sizes(config.dataset, spec), mesh)
"""

from functools import partial

import numpy as np
from jax.sharding import Mesh

from rattn_jax.config.schema import BALANCED, DatasetConfig, RunConfig
from rattn_jax.data.batches import (
    FIXED_NORMALIZATIONS,
    Normalization,
    mean_image_normalization,
)
from rattn_jax.data.dataset import Dataset, DatasetSpec
from rattn_jax.data.exclude import exclusions, note_matches
from rattn_jax.data.loaders import (
    ImageSizes,
    Loader,
    ResidentLoader,
    StreamedLoader,
    num_threads,
)
from rattn_jax.data.read import BadExamples, load_split
from rattn_jax.data.splits import build_splits
from rattn_jax.errors import UsageError


def image_sizes(config: DatasetConfig, spec: DatasetSpec) -> ImageSizes:
    """Image sizes of a run.

    Raises:
        UsageError: neither config nor dataset specifies a size.
    """
    size = config.image_size or spec.image_size
    if size is None:
        raise UsageError(
            f"config.dataset.image_size is not set, and {config.name} has no size of its own: say "
            "to how many pixels the images are scaled, such as 224"
        )
    return ImageSizes(size, config.eval_image_size or size)


def check_batch_fits(config: RunConfig, dataset: Dataset) -> None:
    """Raises UsageError if a batch has more images than there are to train on."""
    num_train = len(dataset.train) - config.validation_examples
    if config.batch_size > num_train:
        raise UsageError(
            f"config.batch_size={config.batch_size} is larger than the dataset: "
            f"{config.dataset.name} has {num_train} images to train on; use at most so many, or "
            "add images"
        )


def fits_device(
    config: RunConfig, sizes: ImageSizes, spec: DatasetSpec, kept: Normalization | None = None
) -> bool:
    """Whether the decoded examples can be kept on every device, at the size of the network.

    With `dataset.crop_files` random crops of images that may be larger are read anew: one of the
    kept image would be one of its middle, and blurred.

    Args:
        config: the run's config.
        sizes: its image sizes.
        spec: of its dataset.
        kept: a normalization in place of the config's.

    Raises:
        UsageError: `config.normalization` is not possible for them.
    """
    num_bytes = 3 * (spec.num_train * sizes.train**2 + spec.num_test * sizes.eval**2)
    may_be_larger = spec.image_size is None or spec.image_size > sizes.train
    is_cropped = config.augmentation.resized_crop_area and config.dataset.crop_files
    fits = num_bytes <= config.dataset.max_resident_bytes and not (is_cropped and may_be_larger)
    if config.normalization == "mean_image" and kept is None:
        if not fits:
            raise UsageError(
                f"config.normalization='mean_image' needs all images of {config.dataset.name} on "
                "the device, and they stream: use 'imagenet', or a larger "
                "dataset.max_resident_bytes, and dataset.crop_files=False"
            )
        if sizes.train != sizes.eval:
            raise UsageError(
                f"config.dataset.eval_image_size={sizes.eval} is not the image size "
                f"{sizes.train}, of which the mean image is: use config.normalization='imagenet', "
                "or equal sizes"
            )
    return fits


def open_loader(
    config: RunConfig,
    dataset: Dataset,
    sizes: ImageSizes,
    mesh: Mesh,
    kept: Normalization | None = None,
) -> Loader:
    """Opens the loader of a run; reads the whole dataset if it fits on the device.

    Args:
        config: the run's config.
        dataset: its dataset.
        sizes: its image sizes.
        mesh: its devices.
        kept: the normalization of a run that goes on, or of the one that it begins from; None:
            that of the config and the images.

    Raises:
        UsageError: the config does not fit the dataset.
        DataError: examples cannot be used.
    """
    train, evaluated = build_splits(config, dataset)
    data = config.dataset
    excluded = exclusions(data.test_exclude_file, evaluated["test"])
    num_train, num_test = len(dataset.train), len(dataset.test)
    spec = DatasetSpec(dataset.num_classes, dataset.image_size, num_train, num_test)
    if fits_device(config, sizes, spec, kept):
        load = partial(
            load_split,
            num_classes=dataset.num_labels,
            num_threads=num_threads(data),
            exact=data.exact_pixels,
        )
        bad_examples = BadExamples(data.max_bad_examples, replace=data.replace_bad_examples)
        train_split = load(train, size=sizes.train, bad_examples=bad_examples)
        load = partial(load, size=sizes.eval, crop_fraction=data.eval_crop_fraction)
        splits = {name: load(source) for name, source in evaluated.items() if name != "test"}
        splits["test"] = load(evaluated["test"], excluded=excluded)
        note_matches(excluded, splits["test"].excluded)
        normalization = kept or _normalization(config, train_split.images)
        return ResidentLoader(
            train_split,
            splits,
            normalization,
            mesh,
            seed=config.seed,
            batch_size=config.batch_size,
            balanced=data.sampling == BALANCED,
        )
    return StreamedLoader(
        train,
        evaluated,
        kept or FIXED_NORMALIZATIONS[config.normalization](),
        mesh,
        config,
        sizes,
        dataset.num_labels,
        excluded,
    )


def _normalization(config: RunConfig, images: np.ndarray) -> Normalization:
    if config.normalization == "mean_image":
        return mean_image_normalization(images)
    return FIXED_NORMALIZATIONS[config.normalization]()
