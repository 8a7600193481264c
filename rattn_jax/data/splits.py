"""The splits of a run. The held-out examples do not depend on the run's seed."""

import hashlib
import unicodedata
from collections.abc import Iterable

import numpy as np

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.dataset import Dataset, Source, Subset
from rattn_jax.data.label_noise import LabelNoise, NoisySource, read_matrix, symmetric_matrix
from rattn_jax.errors import DataError, UsageError

_SEED = 2017  # fixed: what is held out must not change between runs that are compared


def hash_names(names: Iterable[str]) -> np.ndarray:
    """Hashes of names, uint64 [N], evenly distributed and the same on every machine.

    Names that differ only in Unicode's normal form, as on a Mac and elsewhere, have the same hash.
    """

    def hash_name(name: str) -> int:
        text = unicodedata.normalize("NFC", name).encode(errors="surrogateescape")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")

    return np.array([hash_name(name) for name in names], np.uint64)


def hold_out_count(
    labels: np.ndarray,
    count: int,
    num_classes: int,
    hashes: np.ndarray | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Chooses validation examples, balanced over the classes.

    Args:
        labels: classes, int32 [N].
        count: how many examples to hold out.
        num_classes: number of classes; the first ones get one more if `count` is no multiple.
        hashes: of the examples' names, uint64 [N], of which the lowest are chosen, so that one that
            is added moves at most one other; None chooses by position, at random.
        seed: chooses others, by position; None: always the same.

    Returns:
        Positions, ascending, int64 [count].

    Raises:
        UsageError: a class has too few examples to leave one for training.
    """
    sizes = _class_sizes(labels, num_classes)
    wanted = np.full(num_classes, count // num_classes)
    wanted[: count % num_classes] += 1
    scarce = np.flatnonzero((wanted > 0) & (wanted >= sizes))
    if scarce.size:
        most = num_classes * max(int(sizes.min()) - 1, 0)
        raise UsageError(
            f"validation_examples={count} takes {wanted[scarce[0]]} of the {sizes[scarce[0]]} "
            f"training examples of class {scarce[0]}: each class must keep one; use at most {most}"
        )
    if seed is not None:
        return _pick(labels, wanted, seed=seed)
    return _pick(labels, wanted, hashes)


def hold_out_fraction(
    labels: np.ndarray, fraction: float, num_classes: int, hashes: np.ndarray | None = None
) -> np.ndarray:
    """Chooses test examples: `fraction` of each class, at least one and never all.

    With hashes about that fraction, those whose hash is in the lowest `fraction` of the range of
    hashes: each is judged by its own name, so that one that is added or removed moves no other. If
    chance leaves nothing of a class on one side, the example of the lowest hash is held out, or
    that of the highest is not; only this one may move later.

    Args:
        labels: classes, int32 [N].
        fraction: above 0 and below 1.
        num_classes: number of classes.
        hashes: of the examples' names, which should all differ, uint64 [N]; None chooses by
            position, at random.

    Returns:
        Positions, ascending, int64. Classes with a single example keep it for training.
    """
    sizes = _class_sizes(labels, num_classes)
    if hashes is None:
        wanted = np.clip(np.rint(sizes * fraction).astype(int), 1, None)
        return _pick(labels, np.minimum(wanted, np.maximum(sizes - 1, 0)))
    is_held_out = hashes < np.uint64(fraction * 2.0**64)
    by_class, ends = np.lexsort((hashes, labels)), np.cumsum(sizes)
    is_held_out[by_class[(ends - sizes)[sizes > 0]]] = True
    is_held_out[by_class[(ends - 1)[sizes > 0]]] = False
    return np.flatnonzero(is_held_out)


def strata(
    source: Source, num_classes: int, label_sets: np.ndarray | None
) -> tuple[np.ndarray, int]:
    """What examples are held out by: classes, int32 [N], and their number.

    Images that may have several classes, whose sets are often of one image, are one class.
    """
    labels = source.labels()
    return (labels, num_classes) if label_sets is None else (np.zeros_like(labels), 1)


def remaining(total: int, held_out: np.ndarray) -> np.ndarray:
    """Positions below `total` that are not held out, ascending."""
    keep = np.ones(total, bool)
    keep[held_out] = False
    return np.flatnonzero(keep)


def _class_sizes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"labels span {low}..{high}: must lie in 0..{num_classes - 1}; correct the labels or "
            "choose another split"
        )
    return np.bincount(labels, minlength=num_classes)


def _pick(
    labels: np.ndarray, wanted: np.ndarray, hashes: np.ndarray | None = None, seed: int = _SEED
) -> np.ndarray:
    if hashes is None:
        order = np.random.RandomState(seed).permutation(len(labels))
    else:
        order = np.argsort(hashes, kind="stable")
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[by_class], np.arange(len(wanted)))
    picked = [by_class[s : s + n] for s, n in zip(starts, wanted, strict=True)]
    return np.sort(np.concatenate(picked))


def build_splits(config: RunConfig, dataset: Dataset) -> tuple[Source, dict[str, Source]]:
    """Training examples, with label noise, and the splits to evaluate, by name."""
    train, evaluated = dataset.train, {"test": dataset.test}
    noise, count = config.dataset.label_noise, config.validation_examples
    noisy: Source = train
    if noise.matrix or noise.clean_ratio < 1:
        if noise.matrix:
            matrix = read_matrix(noise.matrix, dataset.num_classes)
        else:
            matrix = symmetric_matrix(dataset.num_classes, noise.clean_ratio)
        noisy = NoisySource(train, LabelNoise(matrix, config.seed))
    if not count:
        return noisy, evaluated
    labels, num_classes = strata(train, dataset.num_classes, dataset.label_sets)
    seed = config.validation_seed
    held_out = hold_out_count(labels, count, num_classes, dataset.name_hashes, seed)
    evaluated["validation"] = Subset(train, held_out)
    return Subset(noisy, remaining(len(train), held_out)), evaluated
