"""The launch scripts, with the commands of a cluster played by small scripts."""

import os
import socket
import subprocess
import sys

import pytest

from tests.compare import read_rows
from tests.forks import ENVIRONMENT, ROOT

SRUN = """
while [[ $1 == --* ]]; do shift; done
for id in 0 1; do
  SLURM_NTASKS=2 SLURM_PROCID=$id SLURM_LOCALID=$id SLURM_STEP_NODELIST=localhost "$@" &
  tasks+=($!)
done
for task in "${tasks[@]}"; do wait "$task" || status=$?; done
exit ${status:-0}
"""


def write_command(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)


@pytest.fixture
def folder(tmp_path):
    """What the scripts assume: the repository with its .venv; and commands found first."""
    (tmp_path / "main.py").symlink_to(ROOT / "main.py")
    write_command(tmp_path / ".venv/bin/python", f'exec {sys.executable} "$@"')
    write_command(tmp_path / "bin/python3", f'exec {sys.executable} "$@"')
    return tmp_path


def launch(folder, script, *arguments, **environment):
    return subprocess.run(
        ["bash", ROOT / "experiments/launch" / script, *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT | {"PATH": f"{folder}/bin:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def job_of_free_port():
    """A job whose number gives JAX a port that is free: 61440 and the number's last 12 bits."""
    for job in range(os.getpid() % 4000, 4096):
        with socket.socket() as server:
            if server.connect_ex(("localhost", 61440 + job)):
                return str(job)
    raise AssertionError("all ports are taken")


@pytest.mark.slow
def test_jax_finds_the_processes_of_a_slurm_job(folder):
    write_command(folder / "bin/srun", SRUN)
    done = launch(
        *(folder, "slurm.sh", ROOT / "tests/tiny.py", folder / "run"),
        *("--config.num_train_steps=2", "--config.optimizer.boundaries=(1, 2)"),
        SLURM_JOB_ID=job_of_free_port(),
    )
    assert done.returncode == 0, done.stderr
    assert "training on 2 x cpu" in done.stdout
    assert [row["step"] for row in read_rows(folder / "run") if row["split"] == "train"] == [1, 2]


@pytest.mark.parametrize("status", [0, 1, 75])
def test_a_slurm_job_that_saved_in_time_is_queued_again(folder, status):
    write_command(folder / "bin/srun", f"exit {status}")
    write_command(folder / "bin/scontrol", f'echo "$@" > {folder}/called')
    done = launch(folder, "slurm.sh", "config.py", "run", SLURM_JOB_ID="12")
    assert done.returncode == status
    called = folder / "called"
    assert (called.read_text() if called.exists() else "") == ("requeue 12\n" * (status == 75))


def test_every_host_of_a_pod_gets_the_command_as_it_was_written(folder):
    gcloud = 'for last; do :; done; echo "$@" | head -1; exec bash -c "${last#--command=}"'
    write_command(folder / "bin/gcloud", gcloud)
    write_command(folder / "bin/python3", 'printf "<%s>" "$@"')
    (folder / "rattn_jax").mkdir()
    boundaries = "--config.optimizer.boundaries=(1, 2)"
    done = launch(folder, "tpu_pod.sh", "pod", "zone", "a.py", "gs://b", boundaries, HOME=folder)
    assert done.returncode == 0, done.stderr
    first, passed = done.stdout.splitlines()
    assert first.split(" --command")[0] == "compute tpus tpu-vm ssh pod --zone=zone --worker=all"
    assert passed == f"<main.py><--distributed><--config=a.py><--workdir=gs://b><{boundaries}>"
