"""Writers beside metrics.jsonl: what reaches them, and that none ends or delays a run."""

import io
import json
import threading
import time

import numpy as np
import pytest
from etils import epath
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rattn_jax.runs.loggers
import rattn_jax.runs.metrics_log
from rattn_jax.errors import UsageError
from rattn_jax.runs.console import Console
from rattn_jax.runs.event_file import EventFile
from rattn_jax.runs.loggers import check_loggers
from rattn_jax.runs.metrics_log import MetricWriter
from rattn_jax.train import train_and_evaluate
from tests.tiny import make_config

PICTURE = Image.new("RGB", (6, 4), (9, 8, 7))


class Fake:
    """A writer that keeps what it gets, and fails while it is told to."""

    name = "fake"

    def __init__(self, *, is_new=True):
        self.calls, self.is_new, self.error, self.gate = [], is_new, None, threading.Event()
        self.gate.set()

    def _take(self, *call):
        self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.calls.append(call)

    def open(self):
        self._take("open")
        return self.is_new

    def append(self, row):
        self._take(row["split"], row["step"])

    def show(self, step, name, picture):
        self._take(name, step)

    def close(self, *, ended_well):
        self._take("close", ended_well)


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


@pytest.fixture
def stream():
    return io.StringIO()


def open_writer(folder, stream, *loggers, last_step=0, **options):
    console = Console(100, 64, stream)
    return MetricWriter(folder, last_step, console, loggers=loggers, **options)


def write(writer, step, split="train"):
    averages = {"loss": 0.5, "error_top1": float("nan")}
    writer.write(step, split, averages, learning_rate=0.1, images_per_second=None)


def steps_in_file(folder):
    return [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_writer_gets_lines_and_pictures_and_a_new_one_those_of_before(folder, stream):
    with open_writer(folder, stream) as writer:
        write(writer, 5)
    fakes = Fake(is_new=True), Fake(is_new=False)
    with open_writer(folder, stream, *fakes, last_step=5) as writer:
        writer.wait_for_loggers()
        write(writer, 10)
        write(writer, 10, "test")
        writer.show(10, "masks", PICTURE)
    new = [("train", 10), ("test", 10), ("masks", 10), ("close", True)]
    assert fakes[0].calls == [("open",), ("train", 5), *new]
    assert fakes[1].calls == [("open",), *new]
    with pytest.raises(KeyError), open_writer(folder, stream, last := Fake()):
        raise KeyError
    assert last.calls[-1] == ("close", False)


def test_a_failing_writer_is_said_once_and_gets_the_lines_later(folder, stream):
    fake = Fake(is_new=False)
    with open_writer(folder, stream, fake) as writer:
        writer.wait_for_loggers()
        fake.error = ConnectionError("no\nroute")
        write(writer, 1)
        wait_for(lambda: "fake fails" in stream.getvalue())
        writer.show(1, "masks", PICTURE)
        write(writer, 2)
        fake.error = None
        write(writer, 3)
    assert [call[1] for call in fake.calls[1:]] == [1, 2, 3, True]
    assert stream.getvalue().count("fake") == 1
    assert (
        "fake fails (ConnectionError: no route): the run goes on, metrics.jsonl has every line"
        in (stream.getvalue())
    )
    assert steps_in_file(folder) == [1, 2, 3]


def test_a_picture_that_is_not_taken_keeps_no_line_back(folder, stream):
    fake = Fake(is_new=False)
    fake.show = lambda *_: (_ for _ in ()).throw(ValueError("no pictures"))
    with open_writer(folder, stream, fake) as writer:
        for step in (1, 2):
            write(writer, step)
            writer.show(step, "masks", PICTURE)
    assert [call[-1] for call in fake.calls[1:]] == [1, 2, True]
    assert stream.getvalue().count("no pictures") == 1


@pytest.mark.parametrize("hangs", [True, False])
def test_a_writer_that_never_answers_neither_ends_nor_holds_the_run(
    folder, stream, monkeypatch, hangs
):
    fake = Fake()
    fake.error = RuntimeError("never")
    if hangs:
        monkeypatch.setattr(rattn_jax.runs.metrics_log, "_OPENING", 0.05)
        monkeypatch.setattr(rattn_jax.runs.metrics_log, "_FINISHING", 0.05)
        fake.gate.clear()
    start = time.monotonic()
    with open_writer(folder, stream, fake) as writer:
        writer.wait_for_loggers()
        write(writer, 1)
        write(writer, 2)
    assert time.monotonic() - start < 10
    assert fake.calls == []
    assert steps_in_file(folder) == [1, 2]
    reason = "no answer yet" if hangs else "RuntimeError: never"
    assert stream.getvalue().count(f"fake fails ({reason})") == 1
    assert "fake lacks lines of metrics: metrics.jsonl has every one\n" in stream.getvalue()
    fake.gate.set()


def test_what_the_user_can_put_right_ends_the_start(folder, stream):
    fake = Fake()
    fake.error = UsageError("log in")
    with pytest.raises(UsageError, match="log in"), open_writer(folder, stream, fake) as writer:
        writer.wait_for_loggers()
    assert "fake" not in stream.getvalue()


def test_a_full_disk_of_tensorboard_is_said_once(folder, stream, monkeypatch):
    is_full, add = threading.Event(), EventFile._add

    def add_if_there_is_space(self, step, **content):
        if is_full.is_set():
            raise OSError(28, "full")
        add(self, step, **content)

    monkeypatch.setattr(EventFile, "_add", add_if_there_is_space)
    with open_writer(folder, stream) as writer:
        writer.wait_for_loggers()
        is_full.set()
        write(writer, 1)
        write(writer, 2)
        wait_for(lambda: "event file fails (OSError: [Errno 28] full)" in stream.getvalue())
        is_full.clear()
        write(writer, 3)
    assert stream.getvalue().count("fail") == 1
    assert steps_in_file(folder) == [1, 2, 3]
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]


def test_event_file_goes_on_in_another_one_after_an_error(folder):
    file = EventFile(folder, 0)
    row = {"split": "train", "loss": 1.0, "learning_rate": None, "time": 0.0}
    file.open()
    file.append(row | {"step": 1})
    file._writer._writer.write(b"cut short")
    file._writer._writer.close()
    with pytest.raises(ValueError, match="closed"):
        file.append(row | {"step": 2})
    file._writer = None  # as after an OSError
    time.sleep(0.01)  # its name has the time
    file.append(row | {"step": 2})
    file.show(2, "masks", PICTURE)
    file.close(ended_well=True)
    assert len(list(folder.iterdir())) == 2
    events = EventAccumulator(str(folder))
    events.Reload()
    assert events.Tags()["scalars"] == ["train/loss"]
    (image,) = events.Images("masks")
    shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    np.testing.assert_array_equal(shown, np.asarray(PICTURE))
    assert image.step == 2


def test_missing_packages_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(rattn_jax.runs.loggers, "is_installed", lambda name: False)
    with pytest.raises(UsageError, match=r"'wandb', and .* pip install -e '\.\[wandb\]', or"):
        check_loggers(("wandb",))
    check_loggers(())
    with pytest.raises(UsageError, match="package mlflow is not installed"):
        train_and_evaluate(make_config(loggers=("mlflow",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
