"""Every command on the pages, on tiny settings, in a folder that has what the pages speak of."""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

import rattn_jax
from experiments.accelerator import check
from experiments.reproduce import runs as reproduced
from rattn_jax import import_torch
from rattn_jax.runs import loggers
from rattn_jax.serving import server
from rattn_jax.train import train_and_evaluate
from rattn_jax.training import run as training
from tests import port_state
from tests.compare import read_rows
from tests.devices import ONE
from tests.page_things import put_things
from tests.pages import PAGES, ROOT, commands, python_blocks
from tests.runs.test_loggers import MlflowStandIn, WandbStandIn
from tests.test_cli import PROGRAMS
from tests.tiny import KEYWORDS, make_config

COMMANDS = {command.line: command for command in commands()}
# Parts of commands that are not run, as all are parsed, and why.
EXCUSED = {
    "--distributed": "joins other processes; tests/experiments/test_launch.py starts them",
    "accelerator speed": "its processes measure time, for which they must be alone on a machine",
}
# Parts of commands that take longer than a few seconds. One training is left.
SLOW = (
    *("rattn train", "rattn selftest", "runs/cifar10_attention56", "cifar100_", "data_dir=/data"),
    *("rattn describe", "accelerator check", "accelerator train"),
    *("experiments.plan_pod", "experiments.reproduce", "experiments.recipe"),
)

_SHORT = (
    *("batch_size=8", "num_train_steps=2", "log_every_steps=1", "eval_every_steps=2"),
    *("checkpoint_every_steps=2", "optimizer.warmup_steps=0", "optimizer.boundaries=(1,)"),
    *("report=False", f"compilation_cache_dir={os.environ['TINY_COMPILATION_CACHE']}"),
)
_NARROW = tuple(f"model.{key}={value}" for key, value in KEYWORDS.items())
_SMALL = ("dataset.image_size=32", "dataset.eval_image_size=32")
# Keys of the config that are added to a command with such a part, and flags; the last one holds.
TINY = {
    r"^(rattn (train|selftest)|python main)": _SHORT,
    r"^(rattn train|python main)(?!.*=finetune)|selftest": _NARROW,  # finetune: of the other run
    r"=(folder|configs/imagenet\w+\.py) ": _SMALL,
    r"validation_examples=": ("validation_examples=8",),
    r"\.accelerator train": (*_SHORT, *_NARROW),
    r"\.show_batch": ("batch_size=8",),
    r"\.plan_pod": ("batch_size=8", *_NARROW, *_SMALL),
    r"\.reproduce": (*_SHORT, *_NARROW, "model.scan_modules=False"),
    r"\.recipe": (
        *(*_SHORT, *_NARROW, "dataset.name=digits"),
        "regularization.mixing_off_last_steps=0",
    ),
}
TINY_FLAGS = {
    r"serve": ("--port=0", "--batch-size=2"),
    r"\.accelerator (check|speed)": ("--tiny",),
    r"\.accelerator train": ("--updates=2",),
    r"\.plan_pod": ("--topology=cpu:2",),
    r"\.reproduce": ("--scale=smoke", "--seeds=1", "--only=cifar10_attention56"),
    r"\.recipe": ("--seeds=1", "--epochs=1", "--held-out=1300"),
}


def parts_of(line, parts):
    return [part for part in parts if part in line]


def test_each_command_is_run_or_excused_once():
    for line in COMMANDS:
        assert len(parts_of(line, [*EXCUSED, *SLOW])) <= 1, line
    for part in [*EXCUSED, *SLOW]:
        assert any(part in line for line in COMMANDS), f"no command has {part}"
    for pattern in [*TINY, *TINY_FLAGS]:
        assert any(re.search(pattern, line) for line in COMMANDS), pattern


def to_run():
    lines = [line for line in COMMANDS if not parts_of(line, EXCUSED)]
    slow = {line: [pytest.mark.slow] if parts_of(line, SLOW) else [] for line in lines}
    return [pytest.param(line, id=line, marks=marks) for line, marks in slow.items()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a finished run on digits that has kept its best checkpoint."""
    config = make_config(num_train_steps=2, eval_every_steps=1, validation_examples=100)
    config.keep_best.metric = "error_top1"
    folder = tmp_path_factory.mktemp("finished") / "run"
    train_and_evaluate(config, folder, ONE)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a command runs; what it would start or wait for is in this process, and small."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(training, "find_devices", lambda: ONE)
    monkeypatch.setattr(server, "serve", answer)
    monkeypatch.setattr(reproduced, "call", train_here)
    monkeypatch.setattr(check, "create_model", partial(rattn_jax.create_model, **KEYWORDS))
    monkeypatch.setattr(import_torch, "read_state", lambda path: port_weights())
    monkeypatch.setattr(loggers, "is_installed", lambda package: True)
    mlflow = MlflowStandIn()
    for module in (WandbStandIn(), mlflow, mlflow.entities):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])  # experiments.accelerator adds one
    return tmp_path


def answer(app, listening, limits):
    """Answers the requests on the pages, in place of `rattn serve`."""
    text = "".join(page.read_text() for page in PAGES)
    requests = re.findall(r"curl --data-binary @(\S+) http://[\d.:]+(/\w+)", text)
    assert requests
    with TestClient(app) as client:
        for file, path in requests:
            assert client.post(path, content=Path(file).read_bytes()).status_code == 200


def train_here(command):
    """Trains in this process, and returns the exit status."""
    assert command[:2] == [sys.executable, "main.py"]
    return PROGRAMS["rattn train"](command[2:]) or 0


def train_tiny(config, workdir):
    """Trains as many updates of the smallest run."""
    return train_and_evaluate(
        make_config(num_train_steps=config.num_train_steps, modules=0), workdir, ONE
    )


def port_weights():
    name = "ResidualAttentionModel_92_32input_update"
    state = port_state.random_state(name, widths=(16, 24, 32), num_classes=3)
    return {k: array.astype(np.float32) if array.ndim else array for k, array in state.items()}


def added(table, line):
    return [what for part, own in table.items() if re.search(part, line) for what in own]


def run(command, folder):
    """Runs a command as quickly as it can; returns its arguments and its exit status."""
    # What is at the root of the file system is in the folder instead.
    given = [word.replace("=/", f"={folder}/") for word in command.arguments]
    keys = [f"--config.{key}" for key in added(TINY, command.line)]
    arguments = [*given, *added(TINY_FLAGS, command.line), *keys]
    try:
        return arguments, PROGRAMS[command.program](arguments) or 0
    except SystemExit as ended:
        return arguments, ended.code or 0


@pytest.mark.parametrize("line", to_run())
def test_command_runs(line, folder, finished, monkeypatch):
    command = COMMANDS[line]
    put_things(line, folder, finished, monkeypatch)
    if command.piped:
        written = subprocess.run(["bash", "-c", command.piped], stdout=subprocess.PIPE, check=True)
        assert written.stdout
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(written.stdout)))
    arguments, status = run(command, folder)
    assert status == 0
    for written in re.findall(r"--(?:out|output)=(\S+)", " ".join(arguments)):
        assert Path(written).exists()


@pytest.mark.parametrize("page", [p for p in PAGES if python_blocks(p)], ids=lambda p: p.name)
def test_python_runs(page, folder, finished, monkeypatch):
    code = "\n".join(python_blocks(page))
    put_things(code, folder, finished, monkeypatch)
    load, create_model = rattn_jax.load, rattn_jax.create_model
    monkeypatch.setattr(rattn_jax, "load", lambda name: load(finished))
    narrow = partial(create_model, **KEYWORDS)
    monkeypatch.setattr(rattn_jax, "create_model", narrow, raising=False)
    monkeypatch.setattr(rattn_jax.train, "train_and_evaluate", train_tiny)
    images = np.zeros((2, 8, 8, 3), np.float32)
    names = {"rattn_jax": rattn_jax, "images": images, "image": np.zeros((9, 9, 3), np.uint8)}
    exec(compile(code, page, "exec"), names)


def test_the_folder_of_a_run_is_as_the_page_says(finished):
    text = (ROOT / "docs/runs.md").read_text()
    described = re.findall(r"^    ([\w.-]+)[/,]? ", text, re.MULTILINE)
    assert {path.name for path in finished.iterdir()} - {*described} <= {".lock"}
    (row,) = re.findall(r"^    (\{.*?\})$", text, re.MULTILINE | re.DOTALL)
    assert json.loads(row).keys() <= read_rows(finished)[-1].keys()
