from types import SimpleNamespace

import pytest

from rattn_jax.parallel import watchdog
from rattn_jax.parallel.watchdog import Watchdog


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    return now


def test_a_part_is_limited_from_its_second_time_on(clock):
    watched = Watchdog(seconds=10)
    for part, seconds in (("training", 2.0), ("evaluation", 50.0), ("training", 1.0)):
        watched.enter(part, 1)
        clock[0] += seconds
    watched.enter("saving", 3)
    assert watched.limit("training") == 10 + 3 * 2
    assert watched.limit("evaluation") == 10 + 3 * 50
    assert watched.limit("saving") == 60 * 10


def test_compiling_says_nothing_about_the_time_after_it(clock):
    watched = Watchdog(seconds=10)
    watched.enter("training", 0)
    watched.enter(None, 0)  # compiling
    clock[0] += 1000
    watched.enter("training", 1)
    assert watched.limit("training") == 60 * 10
    clock[0] += 5
    watched.enter("saving", 2)
    assert watched.limit("training") == 10 + 3 * 5
    assert watched.limit(None) == 60 * 10


def test_the_process_that_is_behind_is_named():
    places = [(f"{watchdog._KEYS}/{i}", f"{step}, training") for i, step in ((10, 6), (2, 5))]
    text = watchdog._complaint(10, 31.2, 30, places)
    assert text.startswith("process 10: no progress for 31 s, and the limit is 30 s")
    assert "process 2 hangs (" in text
    assert "process 2: 5, training; process 10: 6, training" in text
    assert "it may be any of them" in watchdog._complaint(0, 31, 30, places[:1])


def test_a_store_that_fails_stops_no_clock(monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("UNAVAILABLE: connection reset")

    client = SimpleNamespace(key_value_set=fail, key_value_dir_get=fail)
    monkeypatch.setattr(watchdog.distributed.global_state, "client", client)
    monkeypatch.setattr(watchdog.time, "sleep", lambda seconds: None)
    ended = []

    def end(status):
        ended.append(status)
        watched.close()

    monkeypatch.setattr(watchdog.os, "_exit", end)
    watched = Watchdog(seconds=1e-3)
    watched.enter("saving", 7)
    watched._watch()
    assert ended == [1]
    error = capsys.readouterr().err
    assert error.startswith("process 0: no progress for ")
    assert "(updates dispatched and current phase: process 0: 7, saving)" in error
