"""Leaving, for whatever reason: the last checkpoint is there, and the exit status is right."""

import re
import signal
import time

import pytest

from rattn_jax.runs.checkpoint_files import all_steps, read_checkpoint
from tests.faults.runs import start_placed
from tests.main_program import BARE, run, start

LONG = "--config.num_train_steps=14"
SIGNALLED = [
    ("compiling", 1),
    *(("stepping", count) for count in (1, 3, 4)),
    *(("evaluating", count) for count in (1, 2, 5)),
    *(("saving", count) for count in (1, 2, 5)),
]


def newest(workdir):
    """The newest checkpoint's step; it can be read."""
    folder = workdir / "checkpoints"
    steps = all_steps(folder)
    if steps:
        read_checkpoint(folder / str(steps[-1]))
    return steps[-1] if steps else 0


@pytest.mark.fault("exit: finished", fast=0, counted=8)
def test_finished(tmp_path, case, outcome):
    status, _, err = run(BARE, f"--workdir={tmp_path}", f"--config.num_train_steps={case + 1}")
    assert (status, newest(tmp_path)) == (0, case + 1), err
    outcome("status 0, last step saved")


@pytest.mark.fault("exit: an exception", fast=1, counted=10)
def test_exception(tmp_path, case, outcome):
    process = start_placed("raise", "stepping", case + 5, LONG, f"--workdir={tmp_path}")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "InjectedError: on purpose" in err
    # The exception came before update case + 4 was begun; every second step is saved.
    assert newest(tmp_path) == (case + 4) // 2 * 2
    outcome("status 1, checkpoint whole")


@pytest.mark.fault("exit: NaN", fast=1, counted=8)
def test_nan(tmp_path, case, outcome):
    """The rate explodes at a later step, so that there is something to lose."""
    late = [f"--config.optimizer.boundaries=({4 + case},)", "--config.optimizer.step_decay=1e30"]
    status, _, err = run(BARE, LONG, *late, f"--workdir={tmp_path}")
    assert status == 1
    assert "gave NaN or infinity; its batch is in" in err.splitlines()[-1]
    assert len(list((tmp_path / "nonfinite").iterdir())) == 1
    last = int(re.search(r"the update after step (\d+) gave NaN", err)[1])
    assert 0 < newest(tmp_path) <= last
    outcome("status 1, nothing saved after the bad update")


@pytest.mark.fault("exit: SIGTERM or Ctrl-C at a chosen place", fast=0, counted=20)
def test_signal_at_a_place(tmp_path, case, outcome):
    place, count = SIGNALLED[(case * 7 + 4) % len(SIGNALLED)]
    fault = ("term", "int")[case // len(SIGNALLED) % 2]
    process = start_placed(fault, place, count, LONG, f"--workdir={tmp_path}")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 75, err
    assert "run again" in err.splitlines()[-1]
    saved = newest(tmp_path)
    status, out, err = run(BARE, LONG, f"--workdir={tmp_path}")
    assert status == 0, err
    assert not saved or f"resuming from the checkpoint of step {saved}" in out
    outcome("status 75, saved, resumed")


@pytest.mark.fault("exit: SIGTERM or Ctrl-C at a random moment", fast=0, counted=12)
def test_signal_at_a_random_moment(tmp_path, case, outcome):
    process = start(BARE, "--config.num_train_steps=100000", f"--workdir={tmp_path}")
    while not (tmp_path / "config.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.4 * case)
    process.send_signal(signal.SIGTERM if case % 2 else signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 75, err
    newest(tmp_path)
    outcome("status 75, saved")


@pytest.mark.fault("exit: leaving in order takes too long", fast=1, counted=2)
def test_grace_runs_out(tmp_path, case, outcome):
    place = ("compiling", "evaluating")[case]
    short = "--config.preemption_grace_seconds=2"
    process = start_placed("hang", place, 1, LONG, short, f"--workdir={tmp_path}")
    assert any(line == "hanging\n" for line in process.stdout)
    since = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 75, err
    assert time.monotonic() - since < 100  # it hangs for 1,000 s
    assert "2 s were not enough" in err
    outcome("status 75 after the grace time")
