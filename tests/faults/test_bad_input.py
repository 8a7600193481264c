"""Configs at random: refused with one line, or a correct run; never a traceback, never a hang."""

import math
import random
import subprocess
import sys

import pytest

from rattn_jax.errors import DataError, NonfiniteError, UsageError
from rattn_jax.train import train_and_evaluate
from tests.compare import read_rows
from tests.devices import ONE
from tests.forks import ENVIRONMENT, ROOT
from tests.main_program import BARE, TINY, run
from tests.tiny import make_config

NUMBERS = (-1, 0, 1, 2, 3, 7, 2**31, 2**70)
REALS = (-1.0, 0.0, 1e-300, 0.5, 1.0, 1e30, math.inf, -math.inf, math.nan)
TEXTS = ("", " ", "none", "é\n", "a" * 300, "../x", "cosine", "lamb", "spatial", "local", "digits")
# These set how long it takes, or what is fetched.
FIXED = {"num_train_steps", "data_dir", "compilation_cache_dir", "preemption_grace_seconds"}
FIXED |= {"num_epochs"}  # in place of the first


def flat(config, prefix=""):
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def random_value(config, key, chance):
    old = config
    for part in key.split("."):
        old = old[part]
    if isinstance(old, bool):
        return chance.choice((True, False))
    if isinstance(old, int):
        return chance.choice(NUMBERS)
    if isinstance(old, float):
        return chance.choice(REALS)
    if isinstance(old, str):
        return chance.choice(TEXTS)
    kinds = (NUMBERS, REALS, TEXTS, [(), (1,), (0, 1), (1, -1, 1), ("a",), (2, 2, 2, 2, 2)])
    return chance.choice(chance.choice(kinds))


@pytest.mark.fault("random configs", fast=3, counted=250)
def test_random_config(tmp_path, case, outcome):
    chance = random.Random(case)
    config = make_config(num_train_steps=2)
    keys = sorted(set(flat(config)) - FIXED)
    for key in chance.sample(keys, chance.choice((1, 1, 2, 3))):
        try:
            config.update_from_flattened_dict({key: random_value(config, key, chance)})
        except TypeError:  # as the command line refuses it
            outcome("refused by the type of the key")
            return
    try:
        train_and_evaluate(config, tmp_path / "run", ONE)
    except (UsageError, DataError, NonfiniteError) as refusal:
        message = str(refusal)
    else:
        assert [row["step"] for row in read_rows(tmp_path / "run")][-1] == 2
        outcome("a correct run")
        return
    assert "\n" not in message, "one line"
    outcome("refused in one line")


OVERRIDES = [
    "--config.batch_size=4.5",
    "--config.batch_size=",
    "--config.optimizer=sgd",
    "--config.optimizer.name",
    "--config.model.widths=8",
    "--config.model.widths=(8",
    "--config.augmentation.resized_crop_area=(0.5,)",
    "--config.seed=0x10",
    "--config.dataset.name=folder:/does not exist/é",
    "--config.model.name=attention56_cifar ",
    "--config.profile_steps=(3,1)",
    "--config.data_dir=/proc/self/mem",
    "--config.parallel=é",
    "--config.sync_batch_norm=maybe",
    "--config.log_every_steps=-0",
    "--config.nothing.at.all=1",
    "--config.batch_size.x=1",
    "--no-such-flag",
    "--num_processes=many",
    "--workdir=",
]


@pytest.mark.fault("bad command lines", fast=2, counted=len(OVERRIDES))
def test_bad_override(tmp_path, case, outcome):
    status, _, err = run(TINY, f"--workdir={tmp_path}/run", OVERRIDES[case])
    assert "Traceback" not in err, err
    assert status in (0, 2), err
    if status == 2:
        assert err.count("\n") == 1, err
    outcome("refused in one line" if status else "a correct run")


SURROUNDINGS = ["stdout closed", "stdout nobody reads", "no terminal", "path", "stdin closed"]


@pytest.mark.fault("surroundings", fast=1, counted=len(SURROUNDINGS))
def test_surroundings(tmp_path, case, outcome):
    kind = SURROUNDINGS[case]
    workdir = tmp_path / ("a b'é\"$x" if kind == "path" else "run")
    command = [sys.executable, "main.py", BARE, f"--workdir={workdir}"]
    shell = {
        "stdout closed": '"$@" >&-',
        "stdout nobody reads": '"$@" | true; exit ${PIPESTATUS[0]}',
    }
    if kind == "stdin closed":
        shell[kind] = '"$@" <&-'
    if kind in shell:
        command = ["bash", "-c", shell[kind], "bash", *command]
    result = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert read_rows(workdir)[-1]["step"] == 6
    outcome("the run went on")
