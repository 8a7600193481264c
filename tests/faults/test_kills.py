"""kill -9, at random moments and at chosen places: nothing is lost, and nothing is left over."""

import random
import signal
import time
from functools import cache

import pytest

from tests.faults.runs import assert_same, finished, start_placed
from tests.main_program import BARE, run, start


def long(num_train_steps):
    return f"--config.num_train_steps={num_train_steps}"


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What a run that is left alone leaves, by its number of updates."""

    @cache
    def run_to(num_train_steps):
        workdir = tmp_path_factory.mktemp("straight")
        status, _, err = run(BARE, long(num_train_steps), f"--workdir={workdir}")
        assert status == 0, err
        return finished(workdir)

    return run_to


def newest_saved(workdir):
    folder = workdir / "checkpoints"
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return max(steps, default=0)


@pytest.mark.fault("kill -9 at random moments, five times a run", fast=0, counted=12)
def test_random_kills(straight, tmp_path, case, outcome):
    chance = random.Random(case)
    for _ in range(5):
        before = newest_saved(tmp_path)
        process = start(BARE, long(40), f"--workdir={tmp_path}")
        time.sleep(chance.uniform(0.5, 12))
        process.kill()
        out, _ = process.communicate()
        if before:
            assert "resuming" in out or "nothing is left" in out or "step" not in out
        assert newest_saved(tmp_path) >= before
    status, _, err = run(BARE, long(40), f"--workdir={tmp_path}")
    assert status == 0, err
    assert_same(finished(tmp_path), straight(40))
    outcome("resumed, bit for bit")


PLACED = [
    *((place, count) for place in ("saving", "renaming") for count in (1, 2, 5, 11, 19)),
    *((place, count) for place in ("stepping", "evaluating") for count in (1, 2, 7, 13, 20)),
    ("restoring", 1),
    ("compiling", 1),
]


@pytest.mark.fault("kill -9, at a chosen place", fast=1, counted=60)
def test_placed_kills(straight, tmp_path, case, outcome):
    place, count = PLACED[(case * 7 + 1) % len(PLACED)]
    steps = 10 if count <= 2 else 40
    if place == "restoring":
        process = start(BARE, long(steps), f"--workdir={tmp_path}")
        while newest_saved(tmp_path) < 4 and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        process.communicate()
    process = start_placed("kill", place, count, long(steps), f"--workdir={tmp_path}")
    _, err = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, err
    status, _, err = run(BARE, long(steps), f"--workdir={tmp_path}")
    assert status == 0, err
    assert_same(finished(tmp_path), straight(steps))
    outcome("resumed, bit for bit")
