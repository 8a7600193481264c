"""NaN and infinity: found before they are saved, and left out if asked."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from etils import epath

import rattn_jax.training.steps
from rattn_jax.errors import NonfiniteError, Preempted
from rattn_jax.parallel.preemption import PreemptionGuard
from rattn_jax.runs.checkpoint_files import all_steps
from rattn_jax.train import train_and_evaluate
from rattn_jax.training import loop
from tests.compare import read_rows
from tests.devices import ONE
from tests.tiny import make_config

BAD = 3  # updates before the bad one


def poison(monkeypatch, where, value):
    """Update number BAD gets `value` in the data, the loss or the gradients."""

    def with_value(x, step):
        return jax.numpy.where(step == BAD, value, x)

    prepare, softmax, pmean = (
        rattn_jax.training.steps.prepare,
        rattn_jax.training.steps.optax.softmax_cross_entropy,
        jax.lax.pmean,
    )
    steps = []

    def bad_prepare(batch, data, step, *rest, **keywords):
        steps.append(step)
        images, targets = prepare(batch, data, step, *rest, **keywords)
        return (with_value(images, step) if where == "data" else images), targets

    def bad_loss(*arguments):
        losses = softmax(*arguments)
        return with_value(losses, steps[-1]) if where == "loss" else losses

    def bad_pmean(tree, axis_name):
        tree = pmean(tree, axis_name)
        if where != "gradient":
            return tree
        grads, rest = tree
        grads["classifier"]["bias"] = with_value(grads["classifier"]["bias"], steps[-1])
        return grads, rest

    monkeypatch.setattr(rattn_jax.training.steps, "prepare", bad_prepare)
    monkeypatch.setattr(rattn_jax.training.steps.optax, "softmax_cross_entropy", bad_loss)
    monkeypatch.setattr(rattn_jax.training.steps.jax.lax, "pmean", bad_pmean)


KINDS = [(where, v) for where in ("data", "gradient", "loss") for v in (np.nan, np.inf)]


@pytest.mark.fault("NaN or infinity: stop", fast=1, counted=len(KINDS))
def test_stop(monkeypatch, tmp_path, case, outcome):
    poison(monkeypatch, *KINDS[(case * 5 + 2) % len(KINDS)])
    config = make_config(modules=0, num_train_steps=8, steps_per_call=2, log_every_steps=4)
    config.checkpoint_every_steps = 1
    with pytest.raises(NonfiniteError, match=f"the update after step {BAD} gave NaN or infinity"):
        train_and_evaluate(config, tmp_path, ONE)
    assert all_steps(tmp_path / "checkpoints") == [2, 3], "nothing after the bad update"
    assert max(row["step"] for row in read_rows(tmp_path)) <= BAD
    (path,) = (tmp_path / "nonfinite").iterdir()
    with np.load(path, allow_pickle=False) as batch:
        assert batch["images"].shape == (16, 8, 8, 3)
        assert batch["labels"].shape == (16,)
    outcome("stopped, batch kept, nothing bad saved")


def test_signal_after_the_bad_update_saves_nothing(monkeypatch, tmp_path):
    """It comes before the next line of metrics, which would have noticed."""
    poison(monkeypatch, "gradient", np.nan)
    asked = []

    def check(guard):
        asked.append(guard)
        if len(asked) > BAD + 2:
            raise Preempted

    monkeypatch.setattr(PreemptionGuard, "check", check)
    config = make_config(modules=0, log_every_steps=100, eval_every_steps=100)
    config.checkpoint_every_steps = 100
    with pytest.raises(NonfiniteError, match=f"the update after step {BAD} gave NaN"):
        train_and_evaluate(config, tmp_path, ONE)
    assert all_steps(tmp_path / "checkpoints") == []


def job_in(folder):
    batch = SimpleNamespace(images=np.zeros((2, 1, 1, 3), np.uint8), labels=np.zeros(2, np.int32))
    loader = SimpleNamespace(host_batch=lambda step: batch)
    return SimpleNamespace(folder=epath.Path(folder), loader=loader)


def test_the_last_ten_batches_are_kept(tmp_path):
    for step in range(95, 107):
        assert loop.keep_batch(job_in(tmp_path), step).startswith("is in ")
    kept = {path.name for path in (tmp_path / "nonfinite").iterdir()}
    assert kept == {f"batch_{step}_of_process_0.npz" for step in range(97, 107)}


def test_a_batch_that_cannot_be_written_hides_nothing(tmp_path):
    (tmp_path / "nonfinite").write_text("a file in its place")
    message = (
        r"the update after step 7 gave .*; its batch could not be kept in .* \(File exists\): low"
    )
    with pytest.raises(NonfiniteError, match=message):
        loop.stop_if_nonfinite(job_in(tmp_path), SimpleNamespace(step=7, nonfinite_step=7))


@pytest.mark.fault("NaN or infinity: skip", fast=1, counted=len(KINDS))
def test_skip(monkeypatch, tmp_path, case, outcome):
    """State 5 with one update left out is what remains when only that update does nothing."""
    poison(monkeypatch, *KINDS[case])

    def train(name, **changes):
        return train_and_evaluate(make_config(modules=0, **changes), tmp_path / name, ONE)

    before = train("before", num_train_steps=BAD)
    state = train("one", num_train_steps=BAD + 1, on_nonfinite="skip")
    for name in ("params", "batch_stats", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(before, name))
    assert (int(state.step), int(state.num_nonfinite)) == (BAD + 1, 1)
    final = train("run", on_nonfinite="skip", log_every_steps=6)
    assert all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(final.params))
    (line,) = [row for row in read_rows(tmp_path / "run") if row["split"] == "train"]
    assert line["skipped_updates"] == 1
    assert len(list((tmp_path / "run/nonfinite").iterdir())) == 1
    outcome("left out, counted, batch kept")
