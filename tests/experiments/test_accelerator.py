"""The commands of `experiments.accelerator`, apart from what a GPU is needed for."""

import json
import tarfile
import zipfile

import numpy as np
import pytest

from experiments.accelerator import __main__ as accelerator
from experiments.accelerator import check, train
from experiments.accelerator.bundle import _leave_out_other_datasets
from experiments.accelerator.record import Record


@pytest.fixture
def record(tmp_path):
    return Record(str(tmp_path / "out"), "train", minutes=10)


def rows_of(record):
    lines = (record.folder / "train.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key != "seconds"}
        for line in lines
    ]


def test_a_row_is_written_as_soon_as_it_is_known(record, capsys):
    record.add(network="attention56_cifar", error=0.5)
    assert rows_of(record) == [{"network": "attention56_cifar", "error": 0.5}]
    assert '"error": 0.5' in capsys.readouterr().out
    assert 590 < record.seconds_left() <= 600


def test_relative_error():
    expected = {"a": np.array([3.0, 0.0]), "b": np.array(4.0)}
    value = {"a": np.array([3.0, 0.3]), "b": np.array(4.4)}
    assert check._relative_error(value, expected) == pytest.approx(0.1)
    assert (
        check._relative_error({"a": np.array([3.0, np.nan]), "b": value["b"]}, expected) == np.inf
    )


class FakeProcess:
    """Ends at the third poll, or when it is killed."""

    def __init__(self):
        self.polls, self.returncode = 0, None

    def poll(self):
        self.polls += 1
        if self.polls == 3:
            self.returncode = 0
        return self.returncode

    def kill(self):
        self.returncode = -9

    def wait(self):
        pass


class FakeRun:
    """A run that makes 1,000 images a second: 10 updates of 100."""

    def __init__(self, folder, log, arguments, num_train_steps):
        self.folder, self.log, self.process = folder, log, FakeProcess()
        folder.mkdir(parents=True)
        log.write_text("finished")

    def rows(self):
        return [{"step": step, "images_per_second": 1000.0} for step in (100, 200, 300)]

    def newest_checkpoint(self):
        return "300"


# 600 s are left: an evaluation takes 15 of them.
@pytest.mark.parametrize(("updates", "runs"), [(6_000, [6_000]), (6_300, [6_300, 5_800])])
def test_a_run_that_does_not_fit_starts_again_with_as_many_updates_as_fit(
    record, monkeypatch, updates, runs
):
    monkeypatch.setattr(train, "_Run", FakeRun)
    monkeypatch.setattr(train.time, "sleep", lambda seconds: None)
    overrides = ["--config.batch_size=100"]
    assert train.train(record, "digits", overrides, num_train_steps=updates)
    rows = rows_of(record)
    assert [row["updates"] for row in rows if "run" in row] == runs
    assert rows[-2:] == [{"status": 0, "updates": runs[-1]}, {"kept_checkpoint": "300"}]
    assert (record.folder / "run.tar.gz").exists()


def test_a_run_for_which_nothing_fits_goes_on(record, monkeypatch):
    monkeypatch.setattr(train, "_Run", FakeRun)
    monkeypatch.setattr(train.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(type(record), "seconds_left", lambda self: 10.0)
    assert train.train(record, "digits", ["--config.batch_size=100"], num_train_steps=6_000)
    rows = rows_of(record)
    assert [row["updates"] for row in rows if "run" in row] == [6_000]
    assert {"updates_that_fit": 0} in rows


def test_one_checkpoint_is_kept_while_others_go(record, monkeypatch):
    run = FakeRun(record.folder / "run", record.folder / "log", [], 100)
    for name in ("checkpoints/0/a", "checkpoints/300/b", "compilation_cache/c", "metrics.jsonl"):
        path = run.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert train._keep(record, run, "300")
    with tarfile.open(record.folder / "run.tar.gz") as archive:
        files = {item.name for item in archive if item.isfile()}
    assert files == {"run/checkpoints/300/b", "run/metrics.jsonl"}

    def vanish(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(tarfile.TarFile, "add", vanish)
    assert not train._keep(record, run, "400")
    assert rows_of(record)[-1] == {"kept_checkpoint": "300"}


def test_flags_of_training_are_refused_elsewhere(tmp_path, capsys):
    for flag in ("--updates=100", "--config=digits", "--config.batch_size=4"):
        with pytest.raises(SystemExit):
            accelerator.main(["speed", f"--out={tmp_path}", flag])
        assert "is for train: leave it out" in capsys.readouterr().err


def test_the_bundle_leaves_out_what_other_datasets_need(tmp_path):
    wheel = tmp_path / "tensorflow_datasets-1.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name in (
            "tfds/core/reader.py",
            "tfds/url_checksums/wikipedia.txt",
            "tfds/x/checksums.tsv",
        ):
            file.writestr(name, "text")
    _leave_out_other_datasets(wheel)
    assert zipfile.ZipFile(wheel).namelist() == ["tfds/core/reader.py"]


@pytest.mark.slow
def test_a_cpu_computes_what_a_cpu_computes(record):
    assert check.check(record, check.TINY_CASES)
    first, highest, *_ = rows_of(record)
    assert first["platform"] == "cpu"
    assert highest["update"] == 0
