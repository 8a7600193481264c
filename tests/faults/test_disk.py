"""Full disks and forbidden folders: said early and clearly, and what was saved stays whole."""

import contextlib
import os
import subprocess
import time

import pytest

from rattn_jax.runs.checkpoint_files import all_steps, read_checkpoint
from tests.compare import read_rows
from tests.main_program import TINY, run, start

LONG = "--config.num_train_steps=20"


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of so many kB at `folder`."""
    folder.mkdir()
    options = f"size={size}k"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder, leave):
    """Writes a file that leaves so many bytes, or fewer if others write meanwhile."""
    disk = os.statvfs(folder)
    with contextlib.suppress(OSError), open(folder / "filling", "wb") as file:
        file.write(bytes(max(disk.f_bavail * disk.f_frsize - leave, 0)))


def assert_whole(workdir):
    steps = all_steps(workdir / "checkpoints")
    for step in steps:
        read_checkpoint(workdir / "checkpoints" / str(step))
    return steps


@pytest.mark.fault("disk full at start", fast=1, counted=3)
def test_full_at_start(tmp_path, case, outcome):
    with small_disk(tmp_path / "disk", 64):
        fill(tmp_path / "disk", case * 4096)
        status, _, err = run(TINY, LONG, f"--workdir={tmp_path}/disk/run")
    assert status in (1, 2), err
    assert "No space left" in err.splitlines()[-1]
    assert "Traceback" not in err
    outcome("refused")


@pytest.mark.fault("disk full in a save: stop", fast=1, counted=12)
def test_full_in_a_save(tmp_path, case, outcome):
    """The disk has room for none, one, two, ... checkpoints and a part of another."""
    workdir = tmp_path / "disk"
    with small_disk(workdir, 420 + 70 * case):
        status, _, err = run(TINY, LONG, f"--workdir={workdir}")
        if status == 0:
            outcome("there was room enough")
            return
        assert status == 1, err
        line = err.splitlines()[-1]
        assert line.startswith("main.py: ")
        assert "could not be written" in line
        assert "No space left" in line
        assert_whole(workdir)
        outcome("status 1, earlier checkpoints whole")


@pytest.mark.fault("disk full in a save: continue", fast=0, counted=6)
def test_going_on(tmp_path, case, outcome):
    """Space is freed while it runs: the run goes on, and ends as if nothing had happened."""
    workdir = tmp_path / "disk"
    more = "--config.num_train_steps=300"
    going_on = "--config.on_save_error=continue"
    with small_disk(workdir, 4096):
        process = start(TINY, more, going_on, f"--workdir={workdir}")
        try:
            while not (workdir / "checkpoints/4").exists():
                assert process.poll() is None
                time.sleep(0.02)
            fill(workdir, 4096 * (case + 1))
            time.sleep(0.5 + 0.3 * case)
            (workdir / "filling").unlink()
            out, err = process.communicate(timeout=200)
        finally:
            process.kill()
        assert process.returncode == 0, err
        assert assert_whole(workdir)[-1] == 300
        steps = [row["step"] for row in read_rows(workdir) if row["split"] == "train"]
        assert steps == list(range(1, 301))
    outcome("went on" if "could not be written" in out else "went on; no save was hit")


@pytest.mark.fault("disk full in the final save: continue", fast=0, counted=3)
def test_final_save_fails(tmp_path, case, outcome):
    workdir = tmp_path / "disk"
    with small_disk(workdir, 420 + 20 * case):
        status, _, err = run(TINY, LONG, "--config.on_save_error=continue", f"--workdir={workdir}")
        assert status == 1, err
        assert "could not be written" in err.splitlines()[-1]
        assert_whole(workdir)
    outcome("status 1")


FOLDERS = ["read-only", "a file", "below a file", "relative", "no space for temporary files"]


@pytest.mark.fault("workdir", fast=2, counted=len(FOLDERS))
def test_workdir(tmp_path, case, outcome):
    kind = FOLDERS[(case + 1) % len(FOLDERS)]
    environment, workdir = {}, tmp_path / "run"
    with contextlib.ExitStack() as stack:
        if kind == "read-only":
            stack.enter_context(small_disk(workdir, 64))
            subprocess.run(["mount", "-o", "remount,ro", workdir], check=True)
        elif kind in ("a file", "below a file"):
            workdir.write_text("")
            workdir = workdir / "below" if kind == "below a file" else workdir
        elif kind == "relative":
            workdir = os.path.relpath(workdir, os.getcwd())
        else:
            stack.enter_context(small_disk(tmp_path / "tmp", 64))
            fill(tmp_path / "tmp", 0)
            environment["TMPDIR"] = str(tmp_path / "tmp")
        status, _, err = run(TINY, f"--workdir={workdir}", **environment)
    if kind in ("relative", "no space for temporary files"):
        assert status == 0, err
        assert (tmp_path / "run/checkpoints/6").is_dir()
        outcome("works")
        return
    assert status == 2
    assert err.count("\n") == 1
    assert "cannot be written" in err
    outcome("refused in one line")
