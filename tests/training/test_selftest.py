import shutil
from functools import partial

import jax
import pytest

import rattn_jax.training.selftest
from rattn_jax.config.load import parse_config
from rattn_jax.errors import NonfiniteError, SaveError, UsageError
from rattn_jax.runs.checkpointer import Checkpointer
from rattn_jax.training.run import check_save_errors, train_and_evaluate
from rattn_jax.training.selftest import selftest
from tests.data.smallest import changed, streaming
from tests.devices import ONE
from tests.tiny import make_config

PASSED = (
    *("devices", "data", "disk", "memory", "training"),
    *("checkpoint", "resuming", "speed", "end"),
)


@pytest.mark.parametrize(
    "config",
    [
        changed,
        partial(changed, parallel="pmap"),
        partial(streaming, num_train_steps=5),  # fewer than the test has
    ],
    ids=["", "pmap", "stream"],
)
def test_a_sound_run_passes_and_nothing_is_left(tmp_path, capsys, config):
    selftest(config(), tmp_path, ONE)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines if line[0] == "ok"] == [*PASSED]
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_going_on_without_a_save_is_refused_to_several_processes(tmp_path, monkeypatch):
    config = make_config(on_save_error="continue")
    check_save_errors(parse_config(config))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for function in (selftest, train_and_evaluate):
        with pytest.raises(UsageError, match=r"for one process: .* set config\.on_save_error=stop"):
            function(config, tmp_path, ONE)
    config.num_train_steps = 0  # an evaluation saves nothing
    check_save_errors(parse_config(config))


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rattn_jax.training.selftest, "_memory_limit", lambda devices: 1000)
    with pytest.raises(UsageError, match=r"a step needs 0.0 GB of memory .* smaller batch_size"):
        selftest(make_config(modules=0), tmp_path, ONE)


def test_a_disk_without_room_is_refused(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UsageError, match=r"has 0.00 GB left and 3 checkpoints need 0.0.*: free"):
        selftest(make_config(modules=0), tmp_path, ONE)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    config = make_config(modules=0)
    config.optimizer.learning_rate = 1e38
    with pytest.raises(NonfiniteError, match=r"gave NaN or infinity: lower the learning rate"):
        selftest(config, tmp_path, ONE)


def test_a_resumed_run_that_differs_is_refused(tmp_path, monkeypatch):
    restore = Checkpointer.restore_latest

    def restore_another(checkpoints, state):
        return jax.tree.map(lambda x: x + x.dtype.type(1), restore(checkpoints, state))

    monkeypatch.setattr(Checkpointer, "restore_latest", restore_another)
    with pytest.raises(SaveError, match="a resumed run is not the uninterrupted one"):
        selftest(make_config(modules=0), tmp_path, ONE)
