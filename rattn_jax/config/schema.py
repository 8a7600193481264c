"""The config of a run as typed values: `config.optimizer.learning_rate`, as in configs/default.py.

Sections, fields and defaults are those of configs/default.py, which explains them. A config.json
that lacks keys, because it is older or belongs to imported weights, is read with the defaults.
"""

import dataclasses
from typing import Any

from rattn_jax.errors import UsageError

# How dataset.name begins where it says where one's own data lies: a folder of class folders, a
# table of images and classes, tar files of WebDataset.
FOLDER, TABLE, SHARDS = "folder:", "table:", "shards:"

SOFTMAX, SIGMOID = "softmax", "sigmoid"  # of loss
OF_SIGMOID = ("mean_average_precision", "f1_macro", "f1_micro")  # what it is measured by
BALANCED = "balanced"  # of dataset.sampling and class_weights
BY_PATH, BY_NAME, BY_POSITION = "path", "name", "position"  # of dataset.hold_out_by


def split_place(name: str) -> tuple[str, str]:
    """How a dataset's name begins and where the data lies; ("", "") for a name alone.

    Raises:
        UsageError: it does not say where.
    """
    kind = next((kind for kind in (FOLDER, TABLE, SHARDS) if name.startswith(kind)), "")
    if kind and name == kind:
        raise UsageError(
            f"dataset.name={name!r} has no path: must say where the data lies, as {kind}photos, or "
            f"{kind}. for the current folder"
        )
    return kind, name.removeprefix(kind) if kind else ""


@dataclasses.dataclass(frozen=True)
class LabelNoiseConfig:
    """Label noise: section `dataset.label_noise`."""

    clean_ratio: float = 1.0
    matrix: str | None = None


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """The dataset: section `dataset`."""

    name: str = "cifar10"
    train_split: str = "train"
    test_split: str | None = None
    test_fraction: float = 0.1
    hold_out_by: str = BY_PATH
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    label_separator: str | None = None
    classes: tuple[str, ...] | None = None
    sampling: str = "uniform"
    image_size: int | None = None
    eval_image_size: int | None = None
    eval_crop_fraction: float = 1.0
    test_exclude_file: str | None = None
    exact_pixels: bool = True
    crop_files: bool = True
    all_images: bool = True
    max_resident_bytes: int = 2**30
    num_threads: int = 0
    max_bad_examples: int = 10
    replace_bad_examples: bool = True
    label_noise: LabelNoiseConfig = LabelNoiseConfig()


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation: section `augmentation`, the keywords of `augment_images`."""

    resized_crop_area: tuple[float, float] | None = None
    crop_padding: int = 4
    flip: bool = True
    trivial_augment: bool = False
    lighting: float = 0.0


@dataclasses.dataclass(frozen=True)
class RegularizationConfig:
    """Regularization: section `regularization`."""

    cutout: int = 0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixing_off_last_steps: int = 0


@dataclasses.dataclass(frozen=True)
class KeepBestConfig:
    """Which checkpoint is the best, and when to stop: section `keep_best`."""

    metric: str | None = None
    mode: str = "min"
    split: str | None = None
    patience: int = 0

    @property
    def chosen_split(self) -> str:
        """The split that is looked at."""
        return self.split or "validation"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network: section `model`. None keeps the default of the network."""

    name: str = "attention56_cifar"
    p: int | None = None
    t: int | None = None
    r: int | None = None
    modules_per_stage: tuple[int, ...] | None = None
    widths: tuple[int, ...] | None = None
    mask_poolings: tuple[int, ...] | None = None
    mask_decoder_units: int | None = None
    mask_activation: str | None = None
    mask_structure: str | None = None
    attention_residual: bool | None = None
    unit: str | None = None
    wiring: str | None = None
    dtype: str | None = None
    remat: bool | None = None
    scan_modules: bool | None = None

    def keywords(self) -> dict[str, Any]:
        """Keywords of `create_model`: all values that are set, except the name."""
        values = dataclasses.asdict(self)
        return {key: v for key, v in values.items() if v is not None and key != "name"}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and learning rate: section `optimizer`."""

    name: str = "sgd"
    schedule: str = "step"
    warmup_steps: int = 0
    warmup_epochs: float | None = None
    learning_rate: float = 0.1
    boundaries: tuple[int, ...] = (64_000, 96_000)
    step_decay: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = True
    clip_norm: float = 0.0


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """All keys of a run."""

    seed: int = 0
    data_dir: str | None = None
    init_from: str | None = None
    freeze: tuple[str, ...] | None = None
    freeze_batch_norm: bool = False
    batch_size: int = 64
    num_train_steps: int = 160_000
    num_epochs: float | None = None
    log_every_steps: int = 100
    eval_every_steps: int = 1_000
    eval_every_epochs: float | None = None
    checkpoint_every_steps: int = 1_000
    keep_checkpoints: int = 2
    keep_best: KeepBestConfig = KeepBestConfig()
    report: bool = True
    loggers: tuple[str, ...] = ()
    parallel: str = "shard_map"
    sync_batch_norm: bool = False
    compilation_cache_dir: str | None = None
    process_timeout_seconds: int = 60
    preemption_grace_seconds: int = 25
    on_save_error: str = "stop"
    on_nonfinite: str = "stop"
    profile_steps: tuple[int, int] | None = None
    steps_per_call: int = 0
    dataset: DatasetConfig = DatasetConfig()
    validation_examples: int = 0
    validation_seed: int | None = None
    normalization: str = "mean_image"
    augmentation: AugmentationConfig = AugmentationConfig()
    regularization: RegularizationConfig = RegularizationConfig()
    label_smoothing: float = 0.0
    loss: str = SOFTMAX
    class_weights: str | tuple[float, ...] | None = None
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    accumulate_steps: int = 1
    ema_decay: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The config as it is written to config.json: nested, in alphabetical order."""
        return _in_order(dataclasses.asdict(self))


def _in_order(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _in_order(value) if isinstance(value, dict) else value
        for key, value in sorted(tree.items())
    }
