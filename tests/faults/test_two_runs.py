"""Two runs in one folder."""

import pytest

from tests.main_program import BARE, run, start, wait_for_step


@pytest.mark.fault("a second run in the same folder", fast=1, counted=3)
def test_second_run(tmp_path, case, outcome):
    arguments = (BARE, f"--workdir={tmp_path}", "--config.num_train_steps=100000")
    first = start(*arguments)
    wait_for_step(tmp_path, 1)
    status, _, err = run(*arguments)
    assert status == 2
    assert err == (
        f"main.py: workdir {tmp_path} is in use by another process: wait for it, or choose another "
        "workdir\n"
    )
    first.kill()  # no stale lock
    first.communicate()
    status, _, err = run(BARE, f"--workdir={tmp_path}", "--config.num_train_steps=1")
    assert status == 0, err
    outcome("refused; none after a crash")
