"""The best checkpoint: chosen, kept, read; and stopping when nothing gets better."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath

import rattn_jax
from rattn_jax import predict
from rattn_jax.config.load import parse_config
from rattn_jax.config.schema import KeepBestConfig
from rattn_jax.errors import DataError, UsageError
from rattn_jax.inference.examples import split_logits
from rattn_jax.runs import checkpoint_files
from rattn_jax.runs.best import best_row, early_end, is_enough
from rattn_jax.runs.checkpoint_files import all_steps
from rattn_jax.runs.workdir import read_run
from rattn_jax.train import evaluate, train_and_evaluate
from rattn_jax.training import loop
from tests.compare import assert_equal, numbers, read_rows
from tests.faults.runs import assert_same, finished
from tests.tiny import make_config

LOSSES = {2: 0.3, 4: 0.1, 6: 0.4, 8: 0.2}  # of the held-out examples, by step


@pytest.fixture(scope="module", autouse=True)
def scripted_losses():
    """Evaluations of the held-out examples find LOSSES."""
    real = loop.evaluate

    def find(steps, loader, state, split, preemption):
        result = real(steps, loader, state, split, preemption)
        if split != "validation":
            return result
        scripted = {**result.averages, "loss": LOSSES[int(state.step)]}
        return dataclasses.replace(result, averages=scripted)

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(loop, "evaluate", find)
        yield


def config_with(**keep_best):
    config = make_config(modules=0, validation_examples=100, num_train_steps=8, keep_checkpoints=1)
    config.checkpoint_every_steps = 8
    config.keep_best.metric = "loss"
    config.keep_best.update(keep_best)
    return config


def train(config, folder):
    return train_and_evaluate(config, folder, jax.devices()[:1])


@pytest.fixture(scope="module")
def run(tmp_path_factory, scripted_losses):
    """Folder and final state of a run whose fourth update was its best."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train(config_with(), folder)


def evaluated(folder):
    return [(row["step"], row["split"]) for row in read_rows(folder) if row["split"] != "train"]


def rows_of(values, split="validation"):
    return [{"step": i, "split": split, "loss": value} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [
        ([3.0, 1.0, 1.0, 2.0], "min", 1),
        ([3.0, 5.0, None, 5.0], "max", 1),
        ([None], "min", None),
        ([], "min", None),
    ],
)
def test_best_of_some_lines(values, mode, best):
    keep_best = KeepBestConfig("loss", mode)
    found = best_row(rows_of([0.0], "test") + rows_of(values), keep_best)
    assert (found and found["step"]) == best
    assert best_row(rows_of(values), KeepBestConfig()) is None


def test_patience_counts_evaluations_since_the_best():
    rows = rows_of([3.0, 1.0, 1.0, 2.0])
    patient = [is_enough(rows, KeepBestConfig("loss", patience=n)) for n in (0, 1, 2, 3)]
    assert patient == [False, True, True, False]
    assert not is_enough(rows_of([None, None]), KeepBestConfig("loss", patience=1))


def test_an_early_end_is_one_by_patience_before_the_last_update():
    rows = rows_of([3.0, 1.0, 2.0, 2.0])
    ended = [early_end(rows, KeepBestConfig("loss", patience=n), 9) for n in (0, 2, 3)]
    assert [bool(text) for text in ended] == [False, True, False]
    assert early_end(rows, KeepBestConfig("loss", patience=2), 3) is None, "the last update"


@pytest.mark.parametrize(
    ("changes", "held_out", "message"),
    [
        ({"metric": "loss"}, 0, r"needs examples to choose by: hold some out with config\.valid"),
        ({"metric": "loss", "split": "test"}, 100, "the test split is evaluated once, at the end"),
        ({"metric": "accuracy"}, 100, r"config\.keep_best\.metric='accuracy' is out of range"),
        ({"metric": "loss", "mode": "least"}, 100, "mode='least' .* must be 'min' or 'max'"),
        ({"metric": "loss", "patience": -1}, 100, r"keep_best\.patience=-1 is out of range"),
        ({"metric": "loss", "mode": "max"}, 100, r"keep the worst loss: set .*keep_best\.mode=min"),
        ({"patience": 2}, 100, r"waits for a better value of nothing: set config\.keep_best\.m"),
    ],
)
def test_what_cannot_be_kept(changes, held_out, message):
    config = make_config(validation_examples=held_out)
    config.keep_best.update(changes)
    with pytest.raises(UsageError, match=message):
        parse_config(config)


def test_test_split_chooses_if_it_is_asked_to():
    config = make_config()
    config.keep_best.update({"metric": "loss", "split": "test"})
    assert parse_config(config).keep_best.chosen_split == "test"


def test_best_and_newest_are_kept_and_nothing_else_changes(run, tmp_path, capsys):
    folder, state = run
    assert all_steps(folder / "checkpoints") == [4, 8]
    train(config_with(), folder)
    assert "best         after 4 steps: --step=best" in capsys.readouterr().out
    plain = config_with(metric=None)
    assert_equal(train(plain, tmp_path / "plain"), state)
    assert numbers(read_rows(tmp_path / "plain")) == numbers(read_rows(folder))
    assert all_steps(tmp_path / "plain" / "checkpoints") == [8]


def test_resumed_run_knows_its_best(tmp_path, run):
    folder = tmp_path / "resumed"
    config = config_with()
    config.num_train_steps = 6
    train(config, folder)
    assert all_steps(folder / "checkpoints") == [4, 6]
    assert_equal(train(config_with(), folder), run[1])
    assert all_steps(folder / "checkpoints") == [4, 8]


def assert_said_to_end_early(out):
    assert (
        "after 6 steps the run has ended early (of 8 updates) by keep_best.patience=1: no loss of "
        "validation examples was better than the 0.1000 after 4; to go on, run again with a larger "
        "--config.keep_best.patience, or 0"
    ) in out
    assert "6/8  test" not in out


def test_patience_ends_a_run_as_its_schedule_would(tmp_path, capsys):
    folder = tmp_path / "run"
    config = config_with(patience=1)
    config.log_every_steps = 4
    state = train(config, folder)
    assert int(state.step) == 6
    assert_said_to_end_early(capsys.readouterr().out)
    whole = [(2, "validation"), (4, "validation"), (6, "validation"), (6, "test")]
    assert evaluated(folder) == whole
    assert [row["step"] for row in read_rows(folder) if row["split"] == "train"] == [4, 6]
    assert all_steps(folder / "checkpoints") == [4, 6]

    assert int(train(config, folder).step) == 6
    out = capsys.readouterr().out
    assert_said_to_end_early(out)
    assert "nothing is left to do" in out
    assert "training on" not in out
    # As if it had been killed between its two last evaluations, after saving.
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(lines[-1])["split"] == "test"
    (folder / "metrics.jsonl").write_text("".join(lines[:-1]))
    assert_equal(train(config, folder), state)
    assert evaluated(folder) == whole
    # More patience goes on, as if it had never stopped.
    longer = config_with(patience=2)
    longer.log_every_steps = 4
    straight = train(longer, tmp_path / "straight")
    assert_equal(train(longer, folder), straight)
    assert int(straight.step) == 8
    assert read_run(epath.Path(folder))[0].keep_best.patience == 2


def test_a_failed_evaluation_loses_no_update_and_is_made_up(tmp_path, monkeypatch):
    config = config_with(patience=1)
    config.checkpoint_every_steps, config.log_every_steps = 2, 4
    train(config, tmp_path / "straight")
    real, failed = loop.evaluate, []

    def fail_once(steps, loader, state, split, preemption):
        place = int(state.step), split
        if place not in failed:
            failed.append(place)
            raise DataError("a damaged image")
        return real(steps, loader, state, split, preemption)

    monkeypatch.setattr(loop, "evaluate", fail_once)
    places = [(2, "validation"), (4, "validation"), (6, "validation"), (6, "test")]
    for step, _ in places:
        with pytest.raises(DataError):
            train(config, tmp_path / "run")
        assert all_steps(tmp_path / "run/checkpoints")[-1] == step
    assert int(train(config, tmp_path / "run").step) == 6
    assert failed == places
    assert all_steps(tmp_path / "run/checkpoints") == [4, 6]
    assert_same(finished(tmp_path / "run"), finished(tmp_path / "straight"))


def test_one_that_is_no_longer_the_best_goes_though_the_new_one_was_saved_before(tmp_path):
    config = config_with()
    config.num_train_steps = 2
    train(config, tmp_path)
    config.num_train_steps = 4  # the first save of a process, read back before the evaluation
    train(config, tmp_path)
    assert all_steps(tmp_path / "checkpoints") == [4]


def test_checkpoint_is_read_by_its_step(run, capsys):
    folder, state = run
    assert [rattn_jax.load(folder, step).step for step in ("last", "best", 4, 8)] == [8, 4, 4, 8]
    last, best = rattn_jax.load(folder), rattn_jax.load(folder, "best")
    jax.tree.map(np.testing.assert_array_equal, last.variables["params"], state.params)
    kernels = [n.variables["params"]["classifier"]["kernel"] for n in (last, best)]
    assert (kernels[0] != kernels[1]).any()
    for step, message in (
        ("5", "has no such checkpoint; must be one of 4, 8, last or best"),
        ("first", "'first': must be best, last or a number of updates"),
    ):
        with pytest.raises(SystemExit) as stopped:
            predict.main([f"--workdir={folder}", f"--step={step}", __file__])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_command_evaluates_a_checkpoint_by_its_step(run, capsys):
    folder, _ = run
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    network = rattn_jax.load(folder, "best")
    logits, labels = split_logits(network, "test")
    capsys.readouterr()
    evaluate([f"--workdir={folder}", "--step=best"])
    refused = ("dataset.eval_crop_fraction", "normalization", "model.r", "keep_best.metric")
    for key in (*refused, "init_from", "loggers"):
        with pytest.raises(SystemExit):
            evaluate([f"--workdir={folder}", "--step=best", f"--config.{key}=1"])
        assert f"--config.{key} is part of the network or of how its" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate([f"--workdir={folder}", "--step=best", "--config.data_dirr=x"])
    assert "no key 'data_dirr': did you mean data_dir" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate([f"--workdir={folder}", "--step=best", "--process-id=0"])
    assert "--process-id is of a job of several processes" in capsys.readouterr().err
    evaluate([f"--workdir={folder}", "--step=best", "--config.dataset.num_threads=1"])
    error = 100 * np.mean(logits.argmax(axis=-1) != labels)
    assert capsys.readouterr().out.startswith(f"step 4: {error:.2f} % of 360 test images, 95 %")
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before


def test_a_best_that_is_removed_while_it_is_read_gives_way_to_the_next(run, tmp_path, monkeypatch):
    folder = shutil.copytree(run[0], tmp_path / "copy")
    real = checkpoint_files.read_checkpoint

    def read(path):
        if path.name == "4":  # as a run that trains does, once it has a better one
            shutil.rmtree(path)
        return real(path)

    monkeypatch.setattr(checkpoint_files, "read_checkpoint", read)
    assert rattn_jax.load(folder, "best").step == 8
    shutil.copytree(run[0] / "checkpoints/4", folder / "checkpoints/4")
    with pytest.raises(UsageError, match=r"--step=4: .* has no such checkpoint; must be one of 8,"):
        rattn_jax.load(folder, 4)


def test_best_that_is_not_there(run, tmp_path):
    with pytest.raises(UsageError, match="holds weights of step 600 alone; choose that, or"):
        rattn_jax.load("attention56_digits", "best")
    assert rattn_jax.load("attention56_digits", 600).step == 600
    folder = shutil.copytree(run[0], tmp_path / "copy")
    for file in (folder / "checkpoints" / "4" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(DataError, match=r"4 is damaged .*: choose another --step"):
        rattn_jax.load(folder, "best")
    record = json.loads((folder / "config.json").read_text())
    del record["config"]["keep_best"]  # as a run of before
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"has no best checkpoint; train with --config\.keep_be"):
        rattn_jax.load(folder, "best")
