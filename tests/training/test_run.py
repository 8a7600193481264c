import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from etils import epath

import rattn_jax.training.run
from rattn_jax.config.load import parse_config
from rattn_jax.config.schema import OptimizerConfig, RunConfig
from rattn_jax.data import dataset_spec, open_dataset
from rattn_jax.data.batches import Normalization
from rattn_jax.data.dataset import Subset
from rattn_jax.errors import Preempted, SaveError, UsageError
from rattn_jax.models import unstack_modules
from rattn_jax.parallel.mesh import make_mesh
from rattn_jax.parallel.preemption import PreemptionGuard
from rattn_jax.runs.console import Console
from rattn_jax.runs.saved_run import record_inputs
from rattn_jax.train import train_and_evaluate
from rattn_jax.training.loop import num_reported
from rattn_jax.training.step_functions import build_steps, explain_jump
from tests import tiny
from tests.compare import assert_close, assert_equal, assert_rows_close, numbers, read_rows
from tests.devices import ONE

make_config = partial(tiny.make_config, modules=0)  # any network will do


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run: its folder and final state."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, train_and_evaluate(make_config(log_every_steps=3), workdir, ONE)


def test_lines_of_a_run(straight):
    rows = read_rows(straight[0])
    assert [(row["step"], row["split"]) for row in rows] == [
        (2, "test"),
        (3, "train"),
        (4, "test"),
        (6, "train"),
        (6, "test"),
    ]
    rates = [row["learning_rate"] for row in rows]
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.05, 0.005, 0.005], rtol=1e-6)
    assert all(0 <= row["error_top5"] <= row["error_top1"] <= 1 for row in rows)


def test_newest_checkpoints_are_kept(straight):
    steps = sorted(path.name for path in (straight[0] / "checkpoints").iterdir())
    assert steps == ["4", "6"]


@pytest.mark.parametrize("cut", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(straight, tmp_path, cut):
    """Also between two lines of metrics: the sums since the last one are saved, too."""
    first = make_config(log_every_steps=3, num_train_steps=cut)
    train_and_evaluate(first, tmp_path, ONE)
    # What an uninterrupted run would not have written at its end.
    rows = [row for row in read_rows(tmp_path) if row["step"] < cut]
    state = train_and_evaluate(make_config(log_every_steps=3), tmp_path, ONE)
    assert_equal(state, straight[1])
    kept = numbers(read_rows(tmp_path))
    assert kept[: len(rows)] == numbers(rows)
    final = [row for row in kept if row["step"] == 6]
    assert final[-1] == numbers(read_rows(straight[0]))[-1]


@pytest.mark.slow
def test_grouping_of_steps_into_calls_changes_nothing(straight, tmp_path):
    config = make_config(log_every_steps=3, steps_per_call=2)
    state = train_and_evaluate(config, tmp_path, ONE)
    assert_close(state, straight[1], rtol=1e-4, atol=1e-5)
    rows = read_rows(tmp_path)
    assert [(row["step"], row["split"]) for row in rows] == [
        (row["step"], row["split"]) for row in read_rows(straight[0])
    ]


@pytest.mark.slow
def test_checkpoint_of_scanned_modules_goes_on_without_and_the_other_way(tmp_path):
    def train(name, num_train_steps, scan_modules):
        config = make_config(num_train_steps=num_train_steps, eval_every_steps=4)
        config.model.modules_per_stage = (2,)
        config.model.scan_modules = scan_modules
        return unstack_modules(train_and_evaluate(config, tmp_path / name, ONE))

    expected = train("apart", 4, False)
    shutil.copytree(tmp_path / "apart", tmp_path / "then scanned")
    shutil.rmtree(tmp_path / "then scanned/checkpoints/4")
    train("scanned", 2, True)
    for name, scan_modules in (("then scanned", True), ("scanned", False)):
        assert_close(train(name, 4, scan_modules), expected, rtol=1e-3, atol=1e-4)
        rows = [read_rows(tmp_path / name)[-1] for name in (name, "apart")]
        assert_rows_close([rows[0]], [rows[1]])


def test_finished_run_has_nothing_left_to_do(straight, capsys):
    before = read_rows(straight[0])
    state = train_and_evaluate(make_config(log_every_steps=3), straight[0], ONE)
    assert_equal(state, straight[1])
    assert read_rows(straight[0]) == before
    assert "nothing is left to do: 6 steps are done" in capsys.readouterr().out


def test_what_changes_for_a_run_that_goes_on_is_said(straight, monkeypatch, capsys):
    """In a thread no signal saves; and the rate may jump, from that of the checkpoint's config."""

    def explain(before, now, step, num_skipped):
        assert num_skipped == 0
        return f"the rate jumps: {before.num_train_steps}, {now.num_train_steps}, {step}"

    monkeypatch.setattr(rattn_jax.training.run, "explain_jump", explain)
    config = make_config(log_every_steps=3, num_train_steps=5)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(train_and_evaluate, config, straight[0], ONE).result()
    out = capsys.readouterr().out
    assert "training in a thread that is not the main one: no signal saves first" in out
    assert "the rate jumps: 6, 5, 6" in out


@pytest.mark.parametrize(
    ("schedule", "before", "now", "step", "says"),
    [
        ("cosine", 6, 60, 6, True),
        ("one_cycle", 6, 60, 3, True),
        ("linear", 60, 30, 20, True),  # a shorter run, too
        ("step", 6, 60, 6, False),
        ("cosine", 60, 60, 6, False),
        ("cosine", 6, 0, 6, False),  # an evaluation
        ("cosine", 6, 60, 0, False),
    ],
)
def test_when_a_jump_of_the_rate_is_said(schedule, before, now, step, says):
    configs = [
        RunConfig(num_train_steps=n, optimizer=OptimizerConfig(schedule=schedule))
        for n in (before, now)
    ]
    assert bool(explain_jump(*configs, step)) == says
    skipped = explain_jump(*configs, step + 2, num_skipped=2)  # the schedule does not count them
    expected = explain_jump(*configs, step)
    if step + 2 < now and expected is not None:
        assert skipped == expected.replace(f"update {step} ", f"update {step + 2} ")


def test_a_resumed_run_normalizes_as_predict_does(tmp_path, monkeypatch):
    def opened(*arguments):
        loaders.append(open_loader(*arguments))
        return loaders[-1]

    loaders, open_loader = [], rattn_jax.training.run.open_loader
    monkeypatch.setattr(rattn_jax.training.run, "open_loader", opened)
    train_and_evaluate(make_config(num_train_steps=1), tmp_path, ONE)
    kept = Normalization(np.full((8, 8, 3), 7, np.float32), np.float32(1))
    record_inputs(epath.Path(tmp_path), kept, 8)
    train_and_evaluate(make_config(num_train_steps=1), tmp_path, ONE)
    np.testing.assert_array_equal(loaders[-1].normalization.mean, kept.mean)
    np.testing.assert_array_equal(rattn_jax.load(tmp_path).normalization.mean, kept.mean)


def test_a_signal_that_finds_a_full_disk_has_saved_nothing(tmp_path, monkeypatch):
    def stop(guard):
        raise Preempted

    monkeypatch.setattr(PreemptionGuard, "check", stop)
    monkeypatch.setattr("orbax.checkpoint.AsyncCheckpointer.save", lambda *_, **__: 1 / 0)
    with pytest.raises(SaveError, match="the checkpoint of step 0 could not be written"):
        train_and_evaluate(make_config(on_save_error="continue"), tmp_path, ONE)


def test_evaluation_alone(straight, tmp_path):
    config = make_config(num_train_steps=2)
    config.optimizer.schedule = "linear"
    train_and_evaluate(config, tmp_path, ONE)
    (line,) = [row for row in read_rows(tmp_path) if row["split"] == "test"]
    assert line["learning_rate"] == pytest.approx(0.05 / 2), "of the second update"
    # Forget the evaluation, as if the run had been killed before it.
    (tmp_path / "metrics.jsonl").write_text("")
    for _ in range(2):
        config.num_train_steps = 0
        train_and_evaluate(config, tmp_path, ONE)
        assert numbers(read_rows(tmp_path)) == numbers([line])


def test_evaluation_alone_needs_a_checkpoint(tmp_path):
    with pytest.raises(UsageError, match="num_train_steps=0 evaluates the latest checkpoint"):
        train_and_evaluate(make_config(num_train_steps=0), tmp_path, ONE)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("num_test", "devices"),
    [
        pytest.param(1, 8, marks=pytest.mark.slow),
        (17, 3),
        pytest.param(32, 8, marks=pytest.mark.slow),
    ],
)
def test_every_test_example_counts_once_on_any_number_of_devices(
    monkeypatch, tmp_path, num_test, devices
):
    digits = open_dataset("digits")
    part = dataclasses.replace(digits, test=Subset(digits.test, range(num_test)))
    monkeypatch.setattr(rattn_jax.training.run, "build_dataset", lambda config: part)
    losses = []
    for count in (1, devices):
        # Without synchronised statistics the two would differ by training.
        config = make_config(num_train_steps=1, sync_batch_norm=True, batch_size=24)
        workdir = tmp_path / str(count)
        train_and_evaluate(config, workdir, jax.devices()[:count])
        losses.append(read_rows(workdir)[-1]["loss"])
        errors = read_rows(workdir)[-1]["error_top1"] * num_test
        assert errors == pytest.approx(round(errors), abs=1e-4)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 0, "config.batch_size=0 is out of range: it must be from 1 to 1,048,576"),
        ("seed", -1, "config.seed=-1 is out of range"),
        ("num_train_steps", -5, "config.num_train_steps=-5 is out of range"),
        ("parallel", "pjit", "config.parallel='pjit' is out of range: it must be 'sh"),
    ],
)
def test_bad_values_are_refused_before_the_folder_is_touched(tmp_path, key, value, message):
    with pytest.raises(UsageError, match=message):
        train_and_evaluate(make_config(**{key: value}), tmp_path / "run", ONE)
    assert not (tmp_path / "run").exists()


def test_bad_optimizer_values(tmp_path):
    for key, value in (
        ("learning_rate", float("nan")),
        ("momentum", 1.0),
        ("boundaries", (5, 3)),
        ("weight_decay", -1.0),
    ):
        config = make_config()
        config.optimizer[key] = value
        with pytest.raises(UsageError, match=f"config.optimizer.{key}="):
            train_and_evaluate(config, tmp_path, ONE)


def test_epochs_are_those_of_the_data(tmp_path, monkeypatch):
    """What is prepared may be a part of the published set."""
    digits = open_dataset("digits")
    part = dataclasses.replace(digits, train=Subset(digits.train, range(100)))
    monkeypatch.setattr(rattn_jax.training.run, "build_dataset", lambda config: part)
    config = parse_config(make_config(num_epochs=3.0, batch_size=10))
    console = Console(quiet=True)
    with rattn_jax.training.run.resolve(config, tmp_path, console) as (resolved, opened):
        assert (resolved.num_train_steps, opened) == (30, part)


def test_skipped_updates_count_neither_for_the_rate_nor_twice():
    config = parse_config(make_config(num_train_steps=10))
    config = dataclasses.replace(config, optimizer=OptimizerConfig(schedule="linear"))
    steps = build_steps(config, dataset_spec("digits"), make_mesh(ONE))
    state = SimpleNamespace(step=6, num_nonfinite=2)
    assert steps.learning_rate(state) == pytest.approx(0.1 * (1 - 3 / 10)), "of update 3, from 0"
    rows = [{"split": "train", "skipped_updates": 2}, {"split": "test"}, {"skipped_updates": None}]
    job = SimpleNamespace(writer=SimpleNamespace(history=rows))
    assert num_reported(job) == 2


def test_updates_are_traced_and_lines_say_how_fast_they_were(tmp_path):
    train_and_evaluate(make_config(num_train_steps=4, profile_steps=(1, 3)), tmp_path, ONE)
    (trace,) = (tmp_path / "profile/plugins/profile").glob("*/*.xplane.pb")
    assert b"step_num" in trace.read_bytes(), "where XProf finds the steps"
    line = next(row for row in read_rows(tmp_path) if (row["step"], row["split"]) == (3, "train"))
    assert line["images_per_second"] == pytest.approx(16 * line["steps_per_sec"])
    assert 0 <= line["input_wait_share"] <= 1
    assert line["peak_memory_bytes"] > 10**7
    assert line["skipped_updates"] == 0
