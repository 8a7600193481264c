"""Label noise (paper, table 5) as a function of (seed, index).

noise = LabelNoise(symmetric_matrix(10, clean_ratio=0.7), seed=0)
noisy = NoisySource(source, noise)        # noisy[3].label may differ from noisy[3].clean_label
"""

import dataclasses
from functools import lru_cache

import numpy as np
from etils import epath

from rattn_jax.config.paths import path_of
from rattn_jax.data.dataset import Example, Source
from rattn_jax.errors import UsageError

_STREAM = 0x4E4F4953  # keeps the noise apart from the order of examples, which has the same seed
_BLOCK = 2**16  # examples whose random numbers are drawn together


def symmetric_matrix(num_classes: int, clean_ratio: float) -> np.ndarray:
    """Transition matrix with `clean_ratio` on the diagonal and the rest spread evenly.

    float64 [num_classes, num_classes]; row c has the probabilities of the labels that examples of
    class c get.
    """
    matrix = np.full((num_classes, num_classes), (1 - clean_ratio) / (num_classes - 1))
    np.fill_diagonal(matrix, clean_ratio)
    return matrix


def read_matrix(path: epath.PathLike, num_classes: int) -> np.ndarray:
    """Transition matrix from a file.

    Args:
        path: a `.npy` file, or text with one row a line, separated by commas or spaces.
        num_classes: what the matrix must fit.

    Returns:
        float64 [num_classes, num_classes].

    Raises:
        UsageError: the file cannot be read, or is no transition matrix of this size.
    """
    file = path_of(path)
    remedy = "correct the file that dataset.label_noise.matrix names"
    try:
        if file.suffix == ".npy":
            with file.open("rb") as stream:
                matrix = np.load(stream, allow_pickle=False).astype(np.float64)
        else:
            matrix = np.loadtxt(file.read_text().replace(",", " ").splitlines(), ndmin=2)
    except Exception as error:  # of many kinds: NumPy parses the header as Python, and zip files
        raise UsageError(f"{file} is not a matrix of numbers ({error}): {remedy}") from error
    if matrix.shape != (num_classes, num_classes):
        raise UsageError(
            f"{file} has the shape {list(matrix.shape)}: must be [{num_classes}, {num_classes}]; "
            + remedy
        )
    sums = matrix.sum(axis=1)
    wrong = np.flatnonzero(~((matrix >= 0).all(axis=1) & (np.abs(sums - 1) < 1e-6)))
    if wrong.size:
        row = int(wrong[0])
        raise UsageError(
            f"row {row} of {file} is not a distribution (sum {sums[row]:.6g}, least "
            f"{matrix[row].min():.6g}): rows must be at least 0 and add up to 1; {remedy}"
        )
    return matrix


class LabelNoise:
    """Draws labels from a transition matrix.

    Args:
        matrix: see `symmetric_matrix`.
        seed: seed of the run.
    """

    def __init__(self, matrix: np.ndarray, seed: int) -> None:
        self._cumulative = np.cumsum(matrix, axis=1)
        self._seed = seed

    def __call__(self, index: int, label: int) -> int:
        """The label that example `index` of class `label` gets."""
        row = self._cumulative[label]
        block, offset = divmod(index, _BLOCK)
        noisy = int(np.searchsorted(row, _draws(self._seed, block)[offset], side="right"))
        # Rounding may leave the last sum below 1; classes of probability 0 are never drawn.
        return min(noisy, int(np.searchsorted(row, row[-1])))


@lru_cache(maxsize=64)
def _draws(seed: int, block: int) -> np.ndarray:
    """Uniform random numbers of a block; RandomState never changes (NumPy's NEP 19)."""
    return np.random.RandomState([seed, _STREAM, block]).random_sample(_BLOCK)


class NoisySource:
    """A source with label noise. See `Source`; `labels()` returns the clean labels."""

    def __init__(self, source: Source, noise: LabelNoise) -> None:
        self._source, self._noise = source, noise

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Example:
        example = self._source[position]
        return dataclasses.replace(example, label=self._noise(example.index, example.label))

    def name(self, position: int) -> str:
        """See `Source`."""
        return self._source.name(position)

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._source.labels()
