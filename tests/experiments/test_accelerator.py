"""The commands of `experiments.accelerator`, apart from what a GPU is needed for."""

import json
import tarfile
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.accelerator import __main__ as accelerator
from experiments.accelerator import check, train
from experiments.accelerator.bundle import _leave_out_other_datasets
from experiments.accelerator.record import Record
from rattn_jax.data.batches import normalize


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


def test_a_schedule_is_shortened_with_the_run(record, monkeypatch):
    seen = []

    class Watched(FakeRun):
        def __init__(self, folder, log, arguments, num_train_steps):
            super().__init__(folder, log, arguments, num_train_steps)
            seen.append(dict(argument.split("=", 1) for argument in arguments))

    monkeypatch.setattr(train, "_Run", Watched)
    monkeypatch.setattr(train.time, "sleep", lambda seconds: None)
    overrides = ["--config.batch_size=256", "--config.optimizer.warmup_epochs=10"]
    train.train(record, "cifar10_attention92_modern", overrides, num_train_steps=4_290)
    train.train(record, "cifar10_attention92_modern", overrides)
    lengths = [int(flags["--config.num_train_steps"]) for flags in seen]
    assert lengths[::2] == [4_290, 42_900]
    for flags, length in zip(seen, lengths, strict=True):
        share = length / 42_900
        assert flags["--config.optimizer.warmup_steps"] == str(round(1_950 * share))
        assert flags["--config.regularization.mixing_off_last_steps"] == str(round(3_900 * share))
        assert "--config.optimizer.warmup_epochs" not in flags


def test_a_length_in_epochs(record, monkeypatch):
    monkeypatch.setattr(train, "_Run", FakeRun)
    monkeypatch.setattr(train.time, "sleep", lambda seconds: None)
    assert train.train(record, "digits", ["--config.num_epochs=10", "--config.batch_size=143"])
    assert [row["updates"] for row in rows_of(record) if "run" in row] == [100]


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


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("speed", ["--updates=100"], "--updates is for train: leave it out"),
        ("speed", ["--config=digits"], "--config is for train and bundle: leave it out"),
        ("check", ["--config.batch_size=4"], "--config.KEY is for train and bundle: leave it out"),
        ("check", ["--data-dir=x"], "--data-dir is for bundle: leave it out"),
        ("train", ["--config=digits", "--data-dir=x"], "--data-dir is for bundle: leave it out"),
        ("train", ["--config=digits", "--tiny"], "--tiny is for check and speed: leave it out"),
        ("train", ["--config=digits", "--start=x"], "--start=x is no folder: give that of a run"),
        ("bundle", ["--config=digits", "--data-dir=x", "--tiny"], "--tiny is for check and speed"),
    ],
)
def test_flags_that_do_nothing_are_refused(tmp_path, capsys, command, flags, message):
    with pytest.raises(SystemExit):
        accelerator.main([command, f"--out={tmp_path / 'out'}", *flags])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_cannot_be_made_leaves_the_one_before(tmp_path, capsys):
    (tmp_path / "out/start").mkdir(parents=True)
    for config, message in (
        ("digit", "did you mean digits"),
        ("cifar10_attention56", "has no "),
    ):
        with pytest.raises(SystemExit):
            accelerator.main(
                ["bundle", f"--out={tmp_path / 'out'}", f"--config={config}", "--data-dir=/nowhere"]
            )
        assert message in capsys.readouterr().err
        assert (tmp_path / "out/start").is_dir()


def test_images_of_the_update_are_those_of_the_logits():
    images, _ = check._inputs(check.Case("attention56_cifar", 32, 10, 2))
    found = normalize(jnp.asarray(images), check._normalization((32, 32, 3)))
    expected = (images.astype(np.float32) - check._MEAN) / check._STD
    np.testing.assert_allclose(found, expected, rtol=1e-6)


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


def test_what_was_not_compared_has_not_passed(record, monkeypatch):
    monkeypatch.setattr(type(record), "seconds_left", lambda self: -1.0)
    assert not check.check(record, cases=check.CASES[:1])


@pytest.mark.slow
def test_a_cpu_computes_what_a_cpu_computes(record):
    assert check.check(record, check.TINY_CASES)
    first, highest, *_ = rows_of(record)
    assert first["platform"] == "cpu"
    assert highest["update"] == 0
