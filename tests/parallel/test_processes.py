"""Several processes on this machine, as on the hosts of a pod: the same run, and no hang."""

import re
import signal
import socket
import time
from contextlib import contextmanager

import pytest

from tests.compare import assert_rows_close, read_rows
from tests.data.test_folder import make_folder
from tests.faults.runs import start_placed
from tests.main_program import BARE, run, start, wait_for_step
from tests.report.test_report import read_page


def start_job(workdir, *arguments, processes=2, devices=2, instead=lambda *a, **e: None):
    """A process for each host, each with so many devices, or what `instead` starts."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    count = {"JAX_NUM_CPU_DEVICES": str(devices)}
    job = []
    for index in range(processes):
        whole = (
            BARE,
            f"--workdir={workdir}",
            "--distributed",
            f"--coordinator_address={address}",
            f"--num_processes={processes}",
            f"--process_id={index}",
            *arguments,
        )
        process = instead(index, *whole, **count) or start(*whole, **count)
        job.append(process)
    return job


@contextmanager
def endless_job(workdir, *arguments, **options):
    """A job that trains until something stops it; nothing of it is left after the block."""
    job = start_job(workdir, "--config.num_train_steps=100000", *arguments, **options)
    try:
        yield job
    finally:
        for process in job:
            process.kill()
            process.communicate()


def finish(job, seconds=200):
    """Exit status and what was written to standard output and error, of each process."""
    end = time.monotonic() + seconds
    outputs = [process.communicate(timeout=max(end - time.monotonic(), 1)) for process in job]
    return [(process.returncode, *output) for process, output in zip(job, outputs, strict=True)]


def run_alone(workdir, *arguments, devices):
    count = {"JAX_NUM_CPU_DEVICES": str(devices)}
    status, _, err = run(BARE, f"--workdir={workdir}", *arguments, **count)
    assert status == 0, err


def assert_same_run(one, other, **sizes):
    assert_rows_close(*(read_rows(workdir) for workdir in (one, other)), **sizes)


def test_two_processes_do_what_one_does(tmp_path):
    attention = "--config.model.modules_per_stage=(1,)"
    job = finish(start_job(tmp_path / "two", attention, "--config.report=True"))
    assert [status for status, _, _ in job] == [0, 0], job
    assert "test error" in job[0][1]
    assert "Gloo" not in job[0][1]
    assert job[1][1] == "", "one process reports"
    assert read_page(tmp_path / "two").pictures == 24 + 8 + 8 + 1
    run_alone(tmp_path / "one", attention, devices=4)
    assert_same_run(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_other_numbers_of_processes_go_on(tmp_path):
    job = finish(start_job(tmp_path / "two"))
    assert [status for status, _, _ in job] == [0, 0], job
    run_alone(tmp_path / "one", devices=4)
    for name in ("two", "one"):
        # Statistics are each replica's own: as many devices go on, in one process.
        run_alone(tmp_path / name, "--config.num_train_steps=8", devices=4)
    assert_same_run(tmp_path / "two", tmp_path / "one")
    job = finish(start_job(tmp_path / "two", "--config.num_train_steps=8", processes=1, devices=8))
    assert job[0][0] == 0
    assert "nothing is left to do: 8 steps are done" in job[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_stream_their_shares(tmp_path, processes):
    folder = make_folder(tmp_path / "images", count=9)
    (tmp_path / "list.txt").write_text("0.jpg\n")
    arguments = [
        f"--config.dataset.name=folder:{folder}",
        "--config.dataset.image_size=8",
        "--config.dataset.max_resident_bytes=0",
        f"--config.dataset.test_exclude_file={tmp_path}/list.txt",
        "--config.normalization=imagenet",
        "--config.report=True",
    ]
    job = finish(start_job(tmp_path / "job", *arguments, processes=processes, devices=1))
    assert [status for status, _, _ in job] == [0] * processes, job
    assert read_page(tmp_path / "job").pictures > 3
    run_alone(tmp_path / "one", *arguments, devices=processes)
    assert_same_run(tmp_path / "job", tmp_path / "one", num_test=16)  # 9 of 2 classes, less 2


def end_by_killing_one(tmp_path):
    short = "--config.process_timeout_seconds=10"
    with endless_job(tmp_path, short) as job:
        wait_for_step(tmp_path, 3)
        job[1].kill()
        since = time.monotonic()
        (status, _, err), _ = finish(job)
    assert time.monotonic() - since < 150  # the run itself would go on for ever
    assert status != 0
    assert err.strip(), "it says why"


def test_a_process_that_is_killed_ends_the_others(tmp_path):
    end_by_killing_one(tmp_path)


@pytest.mark.slow
def test_a_job_resumes_with_pmap(tmp_path):
    end_by_killing_one(tmp_path)
    steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    total = max([*steps, 0]) + 2
    job = finish(start_job(tmp_path, f"--config.num_train_steps={total}", "--config.parallel=pmap"))
    assert [status for status, _, _ in job] == [0, 0], job
    run_alone(tmp_path / "one", f"--config.num_train_steps={total}", devices=4)
    assert_same_run(tmp_path, tmp_path / "one")


def test_sigterm_to_one_stops_all_after_the_same_step(tmp_path):
    with endless_job(tmp_path) as job:
        wait_for_step(tmp_path, 3)
        job[1].send_signal(signal.SIGTERM)
        results = finish(job)
    assert [status for status, _, _ in results] == [75, 75], results
    stopped = {re.search(r"stopped after step (\d+), saved", err)[1] for _, _, err in results}
    assert len(stopped) == 1
    assert (tmp_path / "checkpoints" / stopped.pop()).is_dir()


@pytest.mark.slow
def test_sigterm_ends_a_job_that_cannot_leave_in_order(tmp_path):
    """Process 1 hangs, and process 0 waits for it: the grace time holds for both."""

    def instead(index, *arguments, **environment):
        if index == 1:
            return start_placed("hang", "stepping", 6, *arguments[1:], **environment)
        return None

    with endless_job(tmp_path, "--config.preemption_grace_seconds=2", instead=instead) as job:
        wait_for_step(tmp_path, 5)
        for process in job:
            process.send_signal(signal.SIGTERM)
        since = time.monotonic()
        results = finish(job)
    assert time.monotonic() - since < 150  # the one that hangs would for 1,000 s
    assert [status for status, _, _ in results] == [75, 75], results
    assert all("2 s were not enough to save" in err for _, _, err in results)


def test_a_job_without_an_address_is_refused(tmp_path):
    status, _, err = run(BARE, f"--workdir={tmp_path}", "--distributed")
    assert status == 2
    assert "main.py: --distributed: " in err
