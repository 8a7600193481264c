import os
import signal
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
