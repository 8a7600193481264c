"""main.py as its users run it: a process of its own, and its exit status."""

import re
import signal
import sys

import pytest

from rattn_jax import train
from tests.compare import numbers, read_rows
from tests.data.test_folder import make_folder
from tests.faults.runs import start_placed
from tests.forks import ROOT, start_afresh, start_python
from tests.main_program import BARE, TINY, run, start, wait_for_step


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TINY], "--workdir is missing"),
        (["--workdir=run"], "--config is missing"),
        ([TINY, "--wrokdir=run"], r"unknown flag --wrokdir: did you mean --workdir\?"),
        (
            [TINY, "--epochs=10"],
            r"unknown flag --epochs: did you mean --config.num_epochs\?",
        ),
        ([TINY, "--batch-size=4"], r"unknown flag --batch-size: did you mean --config.batch_size"),
        ([TINY, "extra"], "unexpected argument 'extra'"),
        (["configs/digits.py"], r"did you mean --config=configs/digits.py\?"),
        (
            ["--config=configs/digit.py"],
            r"--config=configs/digit.py: there is no such file .* did you mean digits\?",
        ),
        ([TINY, "--config.batch_size"], "--config.batch_size has no value: must be .*=VALUE"),
        (
            [TINY, "--config.optimizer.learningrate=4"],
            "the config has no key 'optimizer.learningrate': did you mean optimizer.learning_rate?",
        ),
        (
            [TINY, "--config.optimiser.learning_rate=4"],
            "the config has no key 'optimiser.learning_rate': did you mean optimizer.learning_rate",
        ),
        ([TINY, "--config.batch_size=four"], "--config.batch_size=four: invalid literal"),
        ([TINY, "--config.batch_size=0"], "config.batch_size=0 is out of range"),
        ([TINY, "--config.dataset.name=no\nset"], r"no\\nset"),
        (
            [TINY, "--config.dataset.name=mnist", "--config.data_dir=nowhere"],
            "'mnist' is not prepared in .*cifar10",
        ),
        ([TINY, "--config.model.name=vgg"], "model 'vgg' is unknown: .*attention56_cifar"),
        (
            [TINY, "--config.model.widths=(4,'a')"],
            r"widths=\(4, 'a'\) is out of range: it must be a tuple of whole numbers",
        ),
        ([TINY, "--config.model.mask_poolings=(4,)"], "cannot pool a map of 1x1"),
        (
            [TINY, "--config.parallel=none"],
            "config.parallel='none' is out of range: it must be 'shard_map' or 'pmap'",
        ),
        ([TINY, "--config.num_train_steps=0"], "evaluates the latest checkpoint"),
        ([TINY, "--workdir=/proc/none"], "workdir /proc/none cannot be written"),
        ([TINY, "--workdir=/tmp/\udcff"], r"workdir /tmp/\\udcff must be a name in UTF-8"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(ROOT)
    if not any("workdir" in argument for argument in arguments) and "missing" not in message:
        arguments = [*arguments, f"--workdir={tmp_path}"]
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments, prog="main.py")
    err = capsys.readouterr().err
    assert stopped.value.code == 2, err
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
    [
        pytest.param(
            {},
            "glibc.malloc.hugetlb=1",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="they are glibc's"),
        ),
        ({"GLIBC_TUNABLES": ""}, ""),
    ],
)
def test_huge_pages_are_asked_for_unless_the_environment_says_otherwise(
    tmp_path, environment, expected
):
    (tmp_path / "show.py").write_text(
        "import os, sys\n"
        "def get_config():\n    sys.exit('tunables: ' + os.environ['GLIBC_TUNABLES'])\n"
    )
    arguments = [f"--config={tmp_path}/show.py", f"--workdir={tmp_path}/run"]
    process = start_afresh("main.py", *arguments, **{"GLIBC_TUNABLES": None} | environment)
    assert process.communicate(timeout=200) == ("", f"tunables: {expected}\n")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder and the output of a run that was left alone."""
    workdir = tmp_path_factory.mktemp("with space é") / "run"
    process = start_afresh("main.py", TINY, f"--workdir={workdir}", "--config.report=True")
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, "")
    return workdir, out


def test_finished_run(finished):
    workdir, out = finished
    assert {path.name for path in workdir.iterdir()} == {
        *(".lock", "checkpoints", "config.json", "data.json", "mask_health.jsonl"),
        *("metrics.jsonl", "mistakes.csv", "normalization.npz", "parameters.txt", "report.html"),
        "tensorboard",
    }
    assert "Total: " in out
    assert re.search(r"step 6/6  train  loss \d\.\d+  error +\d+\.\d+ %  [\d,]+ images/s", out)
    assert re.search(r"test error \d+\.\d+ % after 6 steps", out)
    assert str(workdir / "report.html") in out
    assert f"tensorboard --logdir '{workdir}/tensorboard'" in out, "it can be pasted"
    assert str(workdir / "metrics.jsonl") in out


def test_run_again_with_another_config(finished):
    status, _, err = run(TINY, f"--workdir={finished[0]}", "--config.seed=1")
    assert status == 2
    assert "seed=0, and this config has seed=1" in err


def test_run_that_was_stopped_goes_on_as_if_it_was_not(tmp_path):
    """A signal from outside, at any moment of a run with many more updates than it gets."""
    arguments = [BARE, f"--workdir={tmp_path}/stopped"]
    process = start(*arguments, "--config.num_train_steps=100000")
    wait_for_step(tmp_path / "stopped", 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 75, err
    step = int(re.search(r"stopped after step (\d+), saved", err)[1])
    assert (tmp_path / "stopped/checkpoints" / str(step)).is_dir()
    for name in ("stopped", "straight"):
        total = f"--config.num_train_steps={step + 3}"
        status, _, err = run(BARE, f"--workdir={tmp_path / name}", total)
        assert status == 0, err
    stopped, straight = (read_rows(tmp_path / name) for name in ("stopped", "straight"))
    assert numbers(stopped) == numbers(straight)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What a run without attention has written that was left alone."""
    workdir = tmp_path_factory.mktemp("straight")
    status, _, err = run(BARE, f"--workdir={workdir}")
    assert status == 0, err
    return numbers(read_rows(workdir))


@pytest.mark.parametrize(("fault", "status"), [("int", 75), ("kill", -signal.SIGKILL)])
def test_run_that_was_stopped_in_its_fifth_update_goes_on(straight, tmp_path, fault, status):
    process = start_placed(fault, "stepping", 5, f"--workdir={tmp_path}")
    _, err = process.communicate(timeout=200)
    assert process.returncode == status, err
    saved = [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    # Ctrl-C lets the update end, and saves; when it is killed, the save of step 4 may be under way.
    assert ("5" in saved) == (fault == "int")
    status, _, err = run(BARE, f"--workdir={tmp_path}")
    assert status == 0, err
    assert numbers(read_rows(tmp_path)) == straight


@pytest.mark.slow
def test_stream_that_was_killed_goes_on_with_the_same_batches(tmp_path):
    folder = make_folder(tmp_path / "images", count=20)
    (folder / "train/cat/3.jpg").write_bytes(b"no image")
    arguments = [
        f"--config.dataset.name=folder:{folder}",
        "--config.dataset.image_size=8",
        "--config.dataset.max_resident_bytes=0",
        "--config.normalization=imagenet",
        "--config.augmentation.resized_crop_area=(0.2,1.0)",
    ]
    process = start_placed("kill", "stepping", 6, *arguments, f"--workdir={tmp_path}/run")
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    for workdir in ("run", "straight"):
        status, _, err = run(BARE, *arguments, f"--workdir={tmp_path / workdir}")
        assert status == 0, err
        assert "skipping bad example 1: " in err
    resumed, straight = (read_rows(tmp_path / workdir) for workdir in ("run", "straight"))
    assert numbers(resumed) == numbers(straight)

    strict = "--config.dataset.max_bad_examples=0"
    status, _, err = run(BARE, *arguments, f"--workdir={tmp_path}/strict", strict)
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
    (tmp_path / "noisy.py").write_text(NOISY)
    process = start_python(tmp_path / "noisy.py", TINY, f"--workdir={tmp_path}/run")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "main.py: could not be written"


def test_a_folder_of_images_is_given_by_data(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(train, "train_and_evaluate", lambda config, workdir: seen.append(config))
    train.main(["--config=folder", "--data=my photos", "--workdir=run", "--config.num_epochs=2"])
    assert seen[0].dataset.name == "folder:my photos"
    assert seen[0].num_epochs == 2
    with pytest.raises(SystemExit) as stopped:
        train.main(["--config=folder", "--data=a", "--workdir=run", "--config.dataset.name=digits"])
    assert stopped.value.code == 2
    assert "--data and --config.dataset.name say the same: give one" in capsys.readouterr().err
