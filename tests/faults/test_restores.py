"""Another config over a run's folder or its checkpoints: it works where it should, and says no."""

import json
import shutil

import jax
import pytest

from rattn_jax.errors import UsageError
from rattn_jax.train import train_and_evaluate
from tests.compare import read_rows
from tests.devices import ONE
from tests.tiny import make_config

REFUSED = {
    "model.name": "attention92_cifar",
    "model.widths": (4,),
    "model.mask_activation": "channel",
    "model.dtype": "bfloat16",
    "dataset.test_fraction": 0.2,
    "optimizer.name": "adamw",
    "optimizer.schedule": "cosine",
    "optimizer.learning_rate": 0.2,
    "batch_size": 8,
    "seed": 1,
    "ema_decay": 0.9,
    "sync_batch_norm": True,
    "validation_examples": 100,
}
ALLOWED = {
    "model.scan_modules": True,
    "parallel": "pmap",
    "steps_per_call": 2,
    "keep_checkpoints": 1,
    "devices": 2,
    "versions": None,
}
CHANGES = [*REFUSED.items(), *ALLOWED.items()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    train_and_evaluate(make_config(num_train_steps=2), workdir, ONE)
    return workdir


@pytest.mark.fault("another config, with the folder's config.json", fast=3, counted=len(CHANGES))
def test_change(trained, tmp_path, case, outcome):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    key, value = CHANGES[(case * 7 + 1) % len(CHANGES)]
    config, devices = make_config(num_train_steps=3), ONE
    if key == "devices":
        devices = jax.devices()[:value]
    elif key == "versions":
        record = json.loads((workdir / "config.json").read_text())
        record["versions"] = dict.fromkeys(record["versions"], "0.0.1")
        (workdir / "config.json").write_text(json.dumps(record))
    else:
        config.update_from_flattened_dict({key: value})
    if key in ALLOWED:
        assert int(train_and_evaluate(config, workdir, devices).step) == 3
        assert read_rows(workdir)[-1]["step"] == 3
        outcome("went on")
        return
    with pytest.raises(UsageError, match=f"{key}=.*and this config has {key}=") as refusal:
        train_and_evaluate(config, workdir, devices)
    assert "\n" not in str(refusal.value)
    outcome("refused: key and both values")


LOST = ["model.widths", "seed", "optimizer.schedule", "model.dtype", "optimizer.name"]


@pytest.mark.fault("another config, after config.json was lost", fast=1, counted=len(LOST))
def test_change_without_the_record(trained, tmp_path, case, outcome):
    """Each checkpoint has the record with it."""
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    (workdir / "config.json").unlink()
    config = make_config(num_train_steps=3)
    key = LOST[case]
    config.update_from_flattened_dict({key: REFUSED[key]})
    with pytest.raises(UsageError, match=f"{key}=.*and this config has {key}="):
        train_and_evaluate(config, workdir, ONE)
    outcome("refused: key and both values")
