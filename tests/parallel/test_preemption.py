import os
import queue
import signal
import threading
import time

import pytest

from rattn_jax.errors import Preempted
from rattn_jax.parallel.preemption import PreemptionGuard


def test_a_signal_that_comes_again_is_heeded_once_and_in_silence(capfd):
    with PreemptionGuard(grace_seconds=60) as preemption:
        preemption.check()
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)  # in which the thread that watches has seen it
        with pytest.raises(Preempted):
            preemption.check()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_what_batch_systems_and_terminals_send_stops_like_sigterm(number):
    before = signal.getsignal(number)
    with PreemptionGuard(grace_seconds=60) as preemption:
        os.kill(os.getpid(), number)
        with pytest.raises(Preempted):
            preemption.check()
    assert signal.getsignal(number) is before


def test_the_grace_time_begins_with_any_of_them(monkeypatch, capfd):
    statuses = queue.Queue()
    monkeypatch.setattr(os, "_exit", statuses.put)
    with PreemptionGuard(grace_seconds=0.01):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert statuses.get(timeout=60) == 75
    assert capfd.readouterr().err.startswith("SIGUSR1, and 0.01 s were not enough to save: run")


def test_a_signal_that_the_program_handles_is_its_own(monkeypatch):
    seen, ended = [], []
    monkeypatch.setattr(os, "_exit", ended.append)
    previous = signal.signal(signal.SIGUSR1, lambda *_: seen.append(True))
    try:
        with PreemptionGuard(grace_seconds=0.01) as guard:
            signal.raise_signal(signal.SIGUSR1)
            time.sleep(0.2)
            guard.check()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert (seen, ended) == ([True], [])


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with PreemptionGuard(grace_seconds=60) as preemption:
            os.kill(os.getpid(), signal.SIGHUP)
            preemption.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_ignored_ctrl_c_stays_ignored_also_after_sigterm():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a script
    try:
        with PreemptionGuard(grace_seconds=60) as preemption:
            signal.raise_signal(signal.SIGINT)
            preemption.check()
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            with pytest.raises(Preempted):
                preemption.check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_signals_are_left_as_they_are():
    said, handlers = [], [signal.getsignal(signal.SIGTERM)]

    def work():
        with PreemptionGuard(grace_seconds=60, say=said.append) as preemption:
            preemption.check()
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers[0] is handlers[1]
    assert [line.partition(":")[0] for line in said] == [
        "training in a thread that is not the main one"
    ]
