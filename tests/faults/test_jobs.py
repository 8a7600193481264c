"""Jobs of several processes of which one dies, raises, stops or hangs."""

import signal
import time

import pytest

from tests.compare import read_rows
from tests.faults.runs import start_placed
from tests.main_program import wait_for_step
from tests.parallel.test_processes import assert_same_run, endless_job, finish, run_alone, start_job

SHARED = "--config.batch_size=12"  # by two or three
TIMEOUT = 10
SHORT = f"--config.process_timeout_seconds={TIMEOUT}"
KINDS = ["killed", "raised", "stopped", "hung", "main killed"]


def broken_job(workdir, processes, kind):
    """A job of which the last process is going to raise or to hang."""
    fault = {"raised": "raise", "hung": "hang"}.get(kind)

    def start(index, *arguments, **environment):
        if fault and index == processes - 1:
            return start_placed(fault, "stepping", 6, *arguments[1:], **environment)
        return None

    return endless_job(workdir, SHARED, SHORT, processes=processes, devices=1, instead=start)


@pytest.mark.fault("a process of a job of 2 or 3", fast=0, counted=20)
def test_job(tmp_path, case, outcome):
    kind, processes = KINDS[(case + 1) % len(KINDS)], 2 + case // len(KINDS) % 2
    with broken_job(tmp_path, processes, kind) as job:
        victim = job[0] if kind == "main killed" else job[-1]
        wait_for_step(tmp_path, 3)
        if kind in ("killed", "main killed"):
            victim.kill()
        elif kind == "stopped":
            victim.send_signal(signal.SIGSTOP)
        since = time.monotonic()
        # One that hangs notices it as well, perhaps before the others do, and ends.
        ending = [process for process in job if process is not victim or kind == "hung"]
        results = finish(ending, seconds=60)
        assert time.monotonic() - since < 30 + (kind == "hung") * 30
    for status, _, err in results:
        assert status != 0
        assert err.strip(), "it says why"
    if kind == "hung":
        assert any(f"process {processes - 1} hangs" in err for _, _, err in results)
    steps = [int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdecimal()]
    total = f"--config.num_train_steps={max([*steps, 0]) + 2}"
    again = finish(start_job(tmp_path, total, SHARED, SHORT, processes=processes, devices=1))
    assert [status for status, _, _ in again] == [0] * processes, again
    run_alone(tmp_path / "one", total, SHARED, devices=processes)
    assert_same_run(tmp_path, tmp_path / "one")
    assert read_rows(tmp_path)
    outcome("the others ended and said why; resumed")
