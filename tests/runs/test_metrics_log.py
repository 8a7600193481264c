import io
import json
import os
import re
import time
from contextlib import closing

import pytest
from etils import epath
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rattn_jax.errors import Preempted, SaveError, UsageError
from rattn_jax.runs import metrics_log
from rattn_jax.runs.console import Console
from rattn_jax.runs.metrics_log import MetricsLog, MetricWriter

AVERAGES = {"loss": 0.5, "error_top1": 0.25, "error_top5": 0.0}


def record(writer, step, split="train", rate=1000.0):
    writer.write(step, split, AVERAGES, learning_rate=0.1, images_per_second=rate)


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_lines_have_the_keys_that_readers_rely_on(folder):
    with MetricWriter(folder, 0, Console(20, 64, io.StringIO())) as writer:
        record(writer, 10)
        record(writer, 10, "test")
        assert writer.newest("test")["step"] == 10
        assert writer.newest("validation") is None
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row.pop("step"), row.pop("split")) for row in rows] == [(10, "train"), (10, "test")]
    for row in rows:
        assert row.pop("time") > 1.7e9
        assert row == AVERAGES | {"learning_rate": 0.1, "images_per_second": 1000.0}


def test_resuming_drops_torn_and_later_lines(folder):
    path = folder / "metrics.jsonl"
    lines = [json.dumps({"step": step, "split": "train"}) + "\n" for step in (10, 20, 30)]
    path.write_text("".join(lines) + '{"step": 40, "sp')
    file = MetricsLog(path, last_step=20)
    file.append({"step": 30, "split": "test"})
    assert path.read_text() == "".join(lines[:2]) + '{"step": 30, "split": "test"}\n'
    assert [row["step"] for row in file.history] == [10, 20, 30]


@pytest.mark.parametrize("line", [b'{"step": 2', b"7", b'{"step": "2", "split": "test"}', b"\xff"])
def test_a_damaged_line_is_named(folder, line):
    path = folder / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "split": "test"}\n' + line + b"\n")
    message = r"metrics\.jsonl, line 2 is damaged: .*; remove that line, or put back a copy"
    with pytest.raises(UsageError, match=message):
        MetricsLog(path, last_step=1)
    assert path.read_bytes().count(b"\n") == 2


def test_line_that_could_not_be_written_comes_with_the_next(folder, monkeypatch):
    path = folder / "metrics.jsonl"
    file = MetricsLog(path, last_step=0)
    rows = [{"step": step, "split": "train"} for step in (10, 20, 30)]
    file.append(rows[0])
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "open", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            file.append(rows[1])
    with path.open("a") as half:
        half.write('{"step": 2')
    file.append(rows[2])
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows


@pytest.mark.parametrize("stop_on_error", [True, False])
def test_a_line_that_cannot_be_written_ends_the_run_or_is_reported(
    folder, monkeypatch, stop_on_error
):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    message = r"metrics of step 10 could not be written to .* \(No space left on device\): free"
    stream, went_on = io.StringIO(), []

    def write():
        console = Console(20, 64, stream)
        with MetricWriter(folder, 0, console, stop_on_error=stop_on_error) as writer:
            monkeypatch.setattr(type(folder), "open", refuse)
            monkeypatch.setattr(metrics_log, "replace_text", refuse)
            record(writer, 10)
            went_on.append(True)  # and the end reports it

    with pytest.raises(SaveError, match=message):
        write()
    assert bool(went_on) is not stop_on_error
    assert ("the next line may succeed" in stream.getvalue()) is bool(went_on)


def stop_without_space(folder, monkeypatch):
    """A signal ends a run whose last line could not be written when it came."""

    def refuse(*_):
        raise OSError(28, "No space left on device")

    console = Console(20, 64, io.StringIO())
    with MetricWriter(folder, 0, console, stop_on_error=False) as writer:
        with monkeypatch.context() as patches:
            patches.setattr(type(folder), "open", refuse)
            record(writer, 10)
        raise Preempted


def test_a_line_that_waits_is_written_at_the_end(folder, monkeypatch):
    with pytest.raises(Preempted):
        stop_without_space(folder, monkeypatch)
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 10


def test_a_reader_that_is_gone_ends_the_output_and_not_the_run():
    reader, end = os.pipe()
    os.close(reader)
    with open(end, "w") as stream:
        console = Console(20, 64, stream)
        console.say("one")
        console.say("two")


def test_tensorboard_shows_each_step_once_after_resuming(folder):
    console = Console(20, 64, io.StringIO())
    for last_step, steps in ((0, (5, 10, 15)), (10, (15, 20))):
        with MetricWriter(folder, last_step, console) as writer:
            for step in steps:
                record(writer, step)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == [
        f"train/{name}" for name in (*AVERAGES, "learning_rate", "images_per_second")
    ]
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [
        (step, 0.5) for step in (5, 10, 15, 20)
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def row(step, split="train", rate=640.0):
    return AVERAGES | {"step": step, "split": split, "images_per_second": rate}


def test_metrics_on_a_terminal_is_one_line_that_is_written_over():
    stream = Terminal()
    console = Console(1000, 64, stream)
    console.show(row(10))
    console.show(row(400))
    console.show(row(400, "test"))
    assert stream.getvalue() == (
        "\r\033[Kstep   10/1000  train  loss 0.5000  error  25.00 %  640 images/s  0:01:39 left"
        "\r\033[Kstep  400/1000  train  loss 0.5000  error  25.00 %  640 images/s  0:01:00 left"
        "\nstep  400/1000  test   loss 0.5000  error  25.00 %  accuracy  75.00 %  640 images/s\n"
    )


def test_metrics_elsewhere_is_a_line_each():
    stream = io.StringIO()
    Console(1000, 64, stream).show(row(10, rate=None))
    assert stream.getvalue() == "step   10/1000  train  loss 0.5000  error  25.00 %\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_a_stream_cannot_encode_are_printed(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
    Console(stream=stream).say("caf\udce9")
    assert stream.buffer.getvalue() == b"caf\\udce9\n"


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def after(console, clock, seconds):
    """Lets time pass, second by second."""
    for _ in range(seconds):
        clock.now += 1
        console.remind()


def test_what_takes_long_is_said_at_growing_intervals():
    stream, clock = io.StringIO(), Clock()
    with closing(Console(stream=stream, clock=clock)) as console:
        console.enter("evaluating test")
        after(console, clock, 30)
        console.enter("training", "step 3/9")
        after(console, clock, 5)
        console.enter(None)
        after(console, clock, 50)
    assert stream.getvalue().splitlines() == [
        *(f"evaluating test: {seconds} s so far" for seconds in (4, 12, 28)),
        "training, step 3/9",
    ]


def test_what_is_quick_is_not_said():
    stream, clock = io.StringIO(), Clock()
    with closing(Console(stream=stream, clock=clock)) as console:
        for i in range(5):
            console.enter("training")
            after(console, clock, 3)
            console.say(str(i))
    assert stream.getvalue() == "0\n1\n2\n3\n4\n"


def test_what_takes_long_is_written_over_on_a_terminal():
    stream, clock = Terminal(), Clock()
    with closing(Console(1000, 64, stream, clock=clock)) as console:
        console.show(row(10, rate=None))
        console.enter("saving")
        after(console, clock, 8)
    assert stream.getvalue() == (
        "\r\033[Kstep   10/1000  train  loss 0.5000  error  25.00 %"
        "\nsaving: 4 s so far\r\033[Ksaving: 8 s so far\r\033[K"
    )


def test_a_thread_says_it():
    stream, end = io.StringIO(), time.monotonic() + 20
    with closing(Console(stream=stream, patience=0.01)) as console:
        console.enter("compiling")
        while not re.search(r"compiling: \d+ s so far\n", stream.getvalue()):
            assert time.monotonic() < end
            time.sleep(0.01)
