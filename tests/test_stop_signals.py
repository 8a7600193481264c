import os
import signal
import time

from rattn_jax.parallel.preemption import StopSignals


def test_a_signal_that_comes_again_is_heeded_once_and_in_silence(capfd):
    with StopSignals(grace_seconds=60) as stop:
        assert not stop.requested()
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)  # in which the thread that watches has seen it
        assert stop.requested()
    assert capfd.readouterr().err == ""
