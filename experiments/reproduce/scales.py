"""The paper's schedule and shorter ones: how each changes a config, and its description."""

from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from rattn_jax.errors import UsageError

_SHORTER = 40
# Chosen with the error of Attention-56 on the examples that are held out (experiments/RESULTS.md).
_DIGITS_TO_TRAIN, _DIGITS_HELD_OUT, _DIGITS_STEPS = 200, 1_237, 600
# Scaled up from 8, at which all masks of stage 3 would be constant: they pool to 1x1 and back.
_DIGITS_SIZE, _DIGITS_BATCH = 16, 32


class Scale(NamedTuple):
    """A schedule.

    Attributes:
        text: its description in a table.
        flags: for the config of a variant, the flags of main.py that apply the schedule.
        ranks: whether the order of the rows is meaningful.
        is_near: whether errors are of the paper's data, and may stand beside the paper's.
        own_splits: whether each seed trains on examples of its own, and is tested on those that
            are held out as well.
    """

    text: str
    flags: Callable[[ConfigDict], tuple[str, ...]]
    ranks: bool
    is_near: bool = True
    own_splits: bool = False


def _paper(config: ConfigDict) -> tuple[str, ...]:
    del config
    return ()


def _short(config: ConfigDict) -> tuple[str, ...]:
    steps = config.num_train_steps // _SHORTER
    boundaries = tuple(step // _SHORTER for step in config.optimizer.boundaries)
    return _flags(
        {
            "num_train_steps": steps,
            "optimizer.boundaries": boundaries,
            "eval_every_steps": steps // 10,
            "checkpoint_every_steps": steps // 40,
        }
    )


def _digits(config: ConfigDict) -> tuple[str, ...]:
    if config.dataset.name != "cifar10":
        raise UsageError(
            f"--scale=digits is for the tables on CIFAR-10 alone, and this one needs "
            f"{config.dataset.name}: choose one of table1, table3, table4, table5, figure4"
        )
    return _flags(
        {
            "dataset.name": "digits",
            "validation_examples": _DIGITS_HELD_OUT,
            "num_train_steps": _DIGITS_STEPS,
            "optimizer.boundaries": (_DIGITS_STEPS * 2 // 3, _DIGITS_STEPS * 7 // 8),
            "dataset.image_size": _DIGITS_SIZE,
            "batch_size": _DIGITS_BATCH,
            "augmentation.crop_padding": _DIGITS_SIZE // 8,  # as 4 pixels are of CIFAR's
            "augmentation.flip": False,  # a mirrored digit is no digit
            "eval_every_steps": _DIGITS_STEPS,
            "checkpoint_every_steps": _DIGITS_STEPS // 3,
            "report": False,
        }
    )


def _smoke(config: ConfigDict) -> tuple[str, ...]:
    imagenet = config.dataset.name == "imagenet2012"
    values: dict[str, object] = {
        "dataset.name": "digits",
        "num_train_steps": 4 if imagenet else 12,
        "log_every_steps": 2,
        "eval_every_steps": 4 if imagenet else 12,
        "checkpoint_every_steps": 2 if imagenet else 6,
        "optimizer.boundaries": (2, 3) if imagenet else (6, 9),
        "augmentation.flip": False,
        "batch_size": 8 if imagenet else 16,
    }
    if imagenet:
        values |= {
            "dataset.image_size": 96,  # the least that Inception-ResNet takes is 75
            "dataset.eval_image_size": 96,
            "dataset.max_resident_bytes": 2**30,
        }
    else:
        values["augmentation.crop_padding"] = 1
        if config.model.name.startswith("attention"):
            values |= {"model.widths": (16, 32, 64), "model.scan_modules": True}
    return _flags(values)


def _flags(values: dict[str, object]) -> tuple[str, ...]:
    return tuple(f"--config.{key}={value}" for key, value in values.items())


SCALES = {
    "paper": Scale("the schedule of the paper", _paper, ranks=True),
    "short": Scale(
        f"1/{_SHORTER} of the paper's schedule, with all else as in the paper. NOT the paper's "
        "protocol: errors are higher, and the order of the rows is the question",
        _short,
        ranks=True,
    ),
    "digits": Scale(
        f"{_DIGITS_STEPS} updates in batches of {_DIGITS_BATCH} on {_DIGITS_TO_TRAIN} of "
        "scikit-learn's digits, scaled to "
        f"{_DIGITS_SIZE}x{_DIGITS_SIZE} pixels, other ones for each seed, and errors on all "
        f"{1_797 - _DIGITS_TO_TRAIN:,} others. The paper's networks and recipe, but without flips, "
        "and with a rate that falls after 2/3 and 7/8 of the updates. NOT the paper's data: "
        "whether its claims hold here is the question. A row whose error in training is far from 0 "
        "has not learned its images in so few updates",
        _digits,
        ranks=True,
        is_near=False,
        own_splits=True,
    ),
    "smoke": Scale(
        "a few updates on scikit-learn's digits, with narrow networks. It shows that the commands "
        "work; the numbers mean nothing",
        _smoke,
        ranks=False,
        is_near=False,
    ),
}
