"""Reads examples into memory, and handles bad ones.

A damaged training image is counted, reported and replaced by the next good one, so that the order
of the others does not change. A damaged test image ends the run, because errors over different test
sets must not be compared.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from absl import logging

from rattn_jax.data.boxes import ChooseBox, center_box
from rattn_jax.data.crops import load_crop
from rattn_jax.data.dataset import Source, Subset
from rattn_jax.data.exclude import matching
from rattn_jax.errors import DataError

_CHUNK = 100  # examples that a thread loads at a time


class BadExample(NamedTuple):
    """An example that cannot be read or decoded.

    Attributes:
        name: of the example, for messages.
        reason: why it cannot be used.
        path: see `Example`; "" if it could not be read.
    """

    name: str
    reason: str
    path: str = ""


class Loaded(NamedTuple):
    """An example in memory.

    Attributes:
        image: uint8 [S, S, 3].
        label: class, with label noise.
        clean_label: class without it.
        path: see `Example`.
    """

    image: np.ndarray
    label: int
    clean_label: int
    path: str


class BadExamples:
    """Counts distinct bad training examples, and ends the run if there are too many.

    Args:
        limit: maximum number.
        replace: whether the next good example takes the place of each in memory; False: it is left
            out.
    """

    def __init__(self, limit: int, *, replace: bool = True) -> None:
        self.replace, self._limit = replace, limit
        self._found: dict[str, str] = {}

    def report(self, examples: Iterable[BadExample]) -> None:
        """Counts and logs new ones.

        Raises:
            DataError: the limit is exceeded.
        """
        for name, reason, _ in examples:
            if name not in self._found:
                self._found[name] = reason
                logging.warning("skipping bad example %d: %s (%s)", len(self._found), name, reason)
        if len(self._found) > self._limit:
            raise too_many_bad(self._found, self._limit)


def load(
    source: Source,
    position: int,
    choose_box: ChooseBox,
    size: int,
    num_classes: int,
    *,
    fast: bool = False,
    exact: bool = True,
) -> Loaded | BadExample:
    """Reads, decodes and crops one example.

    Args:
        source: source of the example.
        position: its index in the source.
        choose_box: chooses a part of the image.
        size: height and width of the result.
        num_classes: what the label must be below.
        fast: see `decode_image`.
        exact: see `load_crop`.

    Raises:
        DataError: the label is out of range. Training would not notice: the loss of a label that
            is too large is NaN, and -1 silently means the last class.
    """
    name, path = source.name(position), ""
    try:
        example = source[position]
        name, path = example.name, example.path
        image = load_crop(
            example.image, choose_box, size, fast=fast, exact=exact, upright=example.upright
        )
    # Readers and decoders raise many kinds of errors.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return BadExample(name, reason, path)
    if not 0 <= example.clean_label < num_classes:
        raise DataError(
            f"{name} has the label {example.clean_label}: must lie in 0..{num_classes - 1}; "
            "correct the labels or choose another split"
        )
    return Loaded(image, example.label, example.clean_label, example.path)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A split in memory, in a fixed order.

    Attributes:
        images: uint8 [N, S, S, 3], RGB.
        labels: int32 [N], with label noise.
        clean_labels: int32 [N], without it.
        source: where they were read from, in the same order. In place of a bad training example
            the arrays have the next good one.
        excluded: numbers of examples that were left out, by the names that exclude them.
    """

    images: np.ndarray
    labels: np.ndarray
    clean_labels: np.ndarray
    source: Source
    excluded: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.labels)


def load_split(
    source: Source,
    *,
    size: int,
    num_classes: int,
    crop_fraction: float = 1.0,
    num_threads: int = 1,
    exact: bool = True,
    bad_examples: BadExamples | None = None,
    excluded: frozenset[str] = frozenset(),
) -> Split:
    """Reads a whole split: the center crop of each image, resized.

    Args:
        source: the split.
        size: height and width of the images.
        num_classes: number of classes.
        crop_fraction: see `center_box`.
        num_threads: number of threads that decode images.
        exact: see `load_crop`.
        bad_examples: counts bad examples, and says whether they are replaced or left out; None:
            they are errors.
        excluded: names of examples to leave out, see `exclude.py`; none where bad ones are
            replaced.

    Raises:
        DataError: bad examples, or labels out of range.
    """
    box = center_box(crop_fraction)
    images = np.empty((len(source), size, size, 3), np.uint8)
    labels = np.zeros((2, len(source)), np.int32)
    keep = np.zeros(len(source), bool)
    matches: list[str] = []

    def load_some(positions: range) -> list[BadExample]:
        bad = []
        for position in positions:
            found = load(source, position, box, size, num_classes, exact=exact)
            if (match := matching(found.path, excluded)) is not None:
                matches.append(match)
            elif isinstance(found, BadExample):
                bad.append(found)
            else:
                images[position], keep[position] = found.image, True
                labels[:, position] = found.label, found.clean_label
        return bad

    count = len(source)
    chunks = [range(count)[start : start + _CHUNK] for start in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(num_threads) as threads:
        bad = list(itertools.chain.from_iterable(threads.map(load_some, chunks)))
    _report(bad, bad_examples)
    if not keep.any():
        raise nothing_usable(bad[0] if bad else None)
    if bad_examples is not None and bad_examples.replace:
        _fill(images, labels, keep)
    elif not keep.all():
        images, labels = images[keep], labels[:, keep]
    kept = Subset(source, np.flatnonzero(keep))
    return Split(images, labels[0], labels[1], kept, Counter(matches))


def _report(bad: Sequence[BadExample], bad_examples: BadExamples | None) -> None:
    if bad_examples is not None:
        bad_examples.report(bad)
    elif bad:
        raise bad_test_example(bad[0])


def _fill(images: np.ndarray, labels: np.ndarray, keep: np.ndarray) -> None:
    """Puts the next good example into the place of each one that is not kept, and keeps all."""
    good, lacking = np.flatnonzero(keep), np.flatnonzero(~keep)
    following = good[np.searchsorted(good, lacking) % len(good)]
    images[lacking], labels[:, lacking] = images[following], labels[:, following]
    keep[:] = True


def too_many_bad(reasons: Mapping[str, str], limit: int) -> DataError:
    """Message about more bad training examples than the limit, by their names."""
    listed = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
    return DataError(
        f"{len(reasons)} training examples cannot be used, more than "
        f"dataset.max_bad_examples={limit}: {listed}. Repair or remove them, or raise the limit"
    )


def nothing_usable(bad: BadExample | None = None) -> DataError:
    """Message about a split of bad or excluded examples alone, with one of the bad ones."""
    example = f", such as {bad.name} ({bad.reason})" if bad else ""
    return DataError(f"no example of the split can be used{example}: check the dataset")


def bad_test_example(bad: BadExample) -> DataError:
    """Message about a bad example in evaluation."""
    return DataError(
        f"{bad.name} cannot be evaluated ({bad.reason}): an error counts every example; repair or "
        "replace it"
    )
