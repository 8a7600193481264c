"""main.py as its users run it: a process of its own, and its exit status."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.test_folder import make_folder
from tests.tiny import numbers

ROOT = Path(__file__).parents[1]
TINY = "--config=tests/tiny.py"
# One device, and quick compilation as in the other tests.
ENVIRONMENT = {name: os.environ[name] for name in os.environ if name != "GLIBC_TUNABLES"} | {
    "JAX_NUM_CPU_DEVICES": "1"
}


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "main.py", *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, **environment):
    process = start(*arguments, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def read_rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TINY], "--workdir is missing"),
        (["--workdir=run"], "--config is missing"),
        (["--config=configs/none.py"], "--config: .*No such file"),
        ([TINY, "--wrokdir=run"], "Unknown command line flag 'wrokdir'"),
        ([TINY, "extra"], "unexpected argument 'extra'"),
        (
            [TINY, "--config.batchsize=4"],
            "the config has no key 'batchsize': configs/default.py lists all",
        ),
        ([TINY, "--config.batch_size=four"], "--config.batch_size=four: invalid literal"),
        ([TINY, "--config.batch_size=0"], "config.batch_size=0 is out of range"),
        ([TINY, "--config.dataset.name=no\nset"], r"no\\nset"),
        ([TINY, "--config.dataset.name=mnist"], "'mnist' is not prepared in .*cifar10"),
        ([TINY, "--config.model.name=vgg"], "model 'vgg' is unknown: .*attention56_cifar"),
        (
            [TINY, "--config.model.widths=(4,'a')"],
            r"widths=\(4, 'a'\): must be whole numbers|stage",
        ),
        ([TINY, "--config.model.mask_poolings=(4,)"], "cannot pool a map of 1x1"),
        (
            [TINY, "--config.parallel=none"],
            "config.parallel='none' is out of range: it must be 'shard_map' or 'pmap'",
        ),
        ([TINY, "--config.num_train_steps=0"], "evaluates the newest checkpoint"),
        ([TINY, "--workdir=/proc/none"], "workdir /proc/none cannot be written"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(tmp_path, arguments, message):
    if not any("workdir" in argument for argument in arguments) and "missing" not in message:
        arguments = [*arguments, f"--workdir={tmp_path}"]
    status, _, err = run(*arguments)
    assert status == 2, err
    assert err.startswith("main.py: ")
    assert err.count("\n") == 1
    assert re.search(message, err)


def test_batch_that_the_devices_cannot_share(tmp_path):
    status, _, err = run(TINY, f"--workdir={tmp_path}", JAX_NUM_CPU_DEVICES="3")
    assert status == 2
    assert err == "main.py: batch_size=16 cannot be split over 3 devices: use a multiple of 3\n"


def test_failure_is_status_1(tmp_path):
    (tmp_path / "broken.py").write_text("def get_config():\n    return 1 / 0\n")
    status, _, err = run(f"--config={tmp_path}/broken.py", f"--workdir={tmp_path}/run")
    assert status == 1
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "glibc.malloc.hugetlb=1"), ({"GLIBC_TUNABLES": ""}, "")],
)
def test_huge_pages_are_asked_for_unless_the_environment_says_otherwise(
    tmp_path, environment, expected
):
    (tmp_path / "show.py").write_text(
        "import os, sys\n"
        "def get_config():\n    sys.exit('tunables: ' + os.environ['GLIBC_TUNABLES'])\n"
    )
    _, _, err = run(f"--config={tmp_path}/show.py", f"--workdir={tmp_path}/run", **environment)
    assert err == f"tunables: {expected}\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder and the output of a run that was left alone."""
    workdir = tmp_path_factory.mktemp("with space é") / "run"
    status, out, err = run(TINY, f"--workdir={workdir}", "--config.report=True")
    assert (status, err) == (0, "")
    return workdir, out


def test_finished_run(finished):
    workdir, out = finished
    assert {path.name for path in workdir.iterdir()} == {
        *(".lock", "checkpoints", "config.json", "mask_health.jsonl"),
        *("metrics.jsonl", "normalization.npz", "parameters.txt", "report.html", "tensorboard"),
    }
    assert "Total: " in out
    assert re.search(r"step 6/6  train  loss \d\.\d+  error +\d+\.\d+ %  [\d,]+ images/s", out)
    assert re.search(r"test error \d+\.\d+ % after 6 steps", out)
    assert str(workdir / "report.html") in out
    assert str(workdir / "metrics.jsonl") in out


def test_run_again_with_another_config(finished):
    status, _, err = run(TINY, f"--workdir={finished[0]}", "--config.seed=1")
    assert status == 2
    assert "seed=0, and this config has seed=1" in err


def wait_for_step(workdir, step):
    """Waits until the run has written a line of `step`."""
    end = time.monotonic() + 100
    while time.monotonic() < end:
        path = workdir / "metrics.jsonl"
        if path.exists() and any(row["step"] >= step for row in read_rows(workdir)):
            return
        time.sleep(0.01)
    raise TimeoutError(f"no line of step {step} in {workdir}")


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 75), (signal.SIGINT, 75), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_run_that_was_stopped_goes_on_as_if_it_was_not(finished, tmp_path, number, status):
    # Many more steps than it gets, so that the signal comes in the middle.
    process = start(TINY, f"--workdir={tmp_path}", "--config.num_train_steps=100000")
    wait_for_step(tmp_path, 3)
    process.send_signal(number)
    _, err = process.communicate(timeout=100)
    assert process.returncode == status, err
    if status == 75:
        stopped = int(re.search(r"stopped after step (\d+), saved", err)[1])
        assert (tmp_path / "checkpoints" / str(stopped)).is_dir()
    steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    total = max([*steps, 0]) + 3
    for workdir in (tmp_path, tmp_path / "straight"):
        code, _, err = run(TINY, f"--workdir={workdir}", f"--config.num_train_steps={total}")
        assert code == 0, err
    resumed, straight = (read_rows(path) for path in (tmp_path, tmp_path / "straight"))

    assert numbers(resumed) == numbers(straight)


def test_stream_that_was_killed_goes_on_with_the_same_batches(tmp_path):
    folder = make_folder(tmp_path / "images", count=20)
    (folder / "train/cat/3.jpg").write_bytes(b"no image")
    arguments = [
        TINY,
        f"--config.dataset.name=folder:{folder}",
        "--config.dataset.image_size=8",
        "--config.dataset.max_resident_bytes=0",
        "--config.normalization=imagenet",
        "--config.augmentation.scale_crop=(0.2,1.0)",
    ]
    process = start(*arguments, f"--workdir={tmp_path}/run", "--config.num_train_steps=100000")
    wait_for_step(tmp_path / "run", 3)
    process.kill()
    process.communicate()
    kept = [int(p.name) for p in (tmp_path / "run/checkpoints").iterdir() if p.name.isdigit()]
    total = max([*kept, 0]) + 3
    for workdir in ("run", "straight"):
        status, _, err = run(
            *arguments, f"--workdir={tmp_path / workdir}", f"--config.num_train_steps={total}"
        )
        assert status == 0, err
        assert "skipping bad example 1: " in err
    resumed, straight = (read_rows(tmp_path / workdir) for workdir in ("run", "straight"))
    assert numbers(resumed) == numbers(straight)

    status, _, err = run(
        *arguments, f"--workdir={tmp_path}/strict", "--config.dataset.max_bad_examples=0"
    )
    assert status == 1
    line = err.splitlines()[-1]
    assert line.startswith("main.py: 1 training examples cannot be used, more than dataset.max_bad")
    assert f"{folder}/train/cat/3.jpg (BadImageError" in line


NOISY = """
import runpy, sys, threading, time
import rattn_jax.train
from rattn_jax.errors import SaveError

def complain():
    while True:
        print("Traceback", end="", file=sys.stderr, flush=True)

def fail(*arguments):
    threading.Thread(target=complain, daemon=True).start()
    time.sleep(0.1)
    raise SaveError("could not be written")

rattn_jax.train.train_and_evaluate = fail
runpy.run_path("main.py", run_name="__main__")
"""


def test_a_failed_save_is_the_last_line_whatever_its_threads_print(tmp_path):
    command = [sys.executable, "-c", NOISY, TINY, f"--workdir={tmp_path}"]
    environment = ENVIRONMENT | {"GLIBC_TUNABLES": ""}  # or main.py starts again, without this
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "main.py: could not be written"
