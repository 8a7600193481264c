"""What runs have left, and whether it is the same.

The same compiled program gives the same numbers, and so does a run that was resumed: these are
compared bit for bit. Two programs (other devices, a stream in place of resident data, several
updates in one call) may add in another order and round otherwise, on each kind of processor
differently: their numbers are compared with a bound.
"""

import json

import jax
import numpy as np

MEASURED = frozenset(
    {"time", "images_per_second", "steps_per_sec", "input_wait_share", "peak_memory_bytes"}
)
# By how much of an image's share one image may change an average.
SHARES = {"error_top1": 1, "error_top5": 1, "balanced_accuracy": 1.1, "ece": 2}


def read_rows(workdir):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def numbers(rows):
    """Lines of metrics without what was measured by the clock."""
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def assert_equal(a, b):
    """Two trees of arrays, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, **tolerance):
    """Two trees of arrays, within the tolerance of `numpy.testing.assert_allclose`."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def assert_rows_close(rows, expected, rel=1e-4, num_test=360):
    """Lines of metrics of two programs that do the same.

    Losses may differ by `rel`. Where two classes are about as likely, rounding may change the
    answer to one image of those that a line is about: the 16 of an update, or the `num_test` of an
    evaluation, by default those of the digits.
    """
    rows, expected = numbers(rows), numbers(expected)
    assert [(row["step"], row["split"]) for row in rows] == [
        (row["step"], row["split"]) for row in expected
    ]
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for key in row.keys() - {"split"}:
            if key in SHARES:
                num_images = 16 if row["split"] == "train" else num_test
                bound = (SHARES[key] + 0.5) / num_images
                assert abs(row[key] - other[key]) < bound, (row, other)
            else:
                np.testing.assert_allclose(row[key], other[key], rtol=rel, err_msg=key)
