"""Runs to break, and what must be true of them afterwards."""

import dataclasses
import os

import numpy as np

from rattn_jax.runs.checkpoint_files import all_steps, read_checkpoint
from tests.compare import numbers, read_rows
from tests.forks import start_python
from tests.main_program import BARE


def start_placed(fault, place, count, *arguments, **environment):
    """main.py with a fault at a place; see `placed.py`."""
    command = ["-m", "tests.faults.placed", fault, place, count, BARE]
    return start_python(*command, *arguments, **environment)


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a finished run has left."""

    rows: list
    steps: list
    state: dict


def finished(workdir):
    """Reads it, and checks that nothing is torn, missing, there twice or left over."""
    rows = read_rows(workdir)
    places = [(row["step"], row["split"]) for row in rows]
    assert len(places) == len(set(places)), "no step is there twice"
    assert places == sorted(places, key=lambda place: (place[0], place[1] == "test"))
    folder = workdir / "checkpoints"
    steps = all_steps(folder)
    assert sorted(map(str, steps)) == sorted(os.listdir(folder)), "nothing is left over"
    return Finished(numbers(rows), steps, read_checkpoint(folder / str(steps[-1]))[0])


def assert_same(one, other):
    """Metrics and final state, bit for bit."""
    assert one.rows == other.rows
    assert one.steps == other.steps
    a, b = (dict(_leaves(finished.state)) for finished in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def _leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}/{key}")
        elif value is not None:
            yield f"{prefix}/{key}", value
