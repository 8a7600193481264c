import pytest

from rattn_jax.training.profiling import Throughput


def test_only_the_time_between_start_and_stop_counts():
    now = 0.0
    throughput = Throughput(10, clock=lambda: now)
    assert throughput.take() is None
    throughput.start()
    throughput.add(6)
    now = 2.0
    throughput.start()  # runs already
    with throughput.waiting():
        now = 3.0
    throughput.add(4)
    now = 4.0
    throughput.stop()
    with throughput.waiting():
        now = 100.0  # an evaluation
    throughput.stop()
    speed = throughput.take()
    assert speed.images_per_second == pytest.approx(25)
    assert speed.steps_per_sec == pytest.approx(2.5)
    assert speed.input_wait_share == pytest.approx(0.25)
    assert throughput.take() is None


def test_the_wait_for_a_batch_before_the_start_counts_unless_a_stop_comes_between():
    now = 0.0
    throughput = Throughput(10, clock=lambda: now)
    for waits, is_compiled in ((100.0, False), (1.0, True)):  # the first call compiles
        with throughput.waiting():
            now += waits
        if is_compiled:
            throughput.start()
            throughput.add(2)
        else:
            throughput.stop()
        now += 3.0
    throughput.stop()
    speed = throughput.take()
    assert speed.steps_per_sec == pytest.approx(0.5)
    assert speed.input_wait_share == pytest.approx(0.25)


def test_updates_beside_something_else_count_only_if_there_are_no_others():
    now = 0.0
    throughput = Throughput(10, clock=lambda: now)
    for disturbed, seconds in ((True, 4.0), (False, 1.0)):
        assert not throughput.is_running(disturbed=disturbed)
        throughput.start(disturbed=disturbed)
        assert throughput.is_running(disturbed=disturbed)
        assert not throughput.is_running(disturbed=not disturbed)
        throughput.add(1)
        now += seconds
        throughput.stop()
    assert throughput.take().steps_per_sec == pytest.approx(1)
    throughput.start(disturbed=True)
    throughput.add(1)
    now += 4
    throughput.stop()
    assert throughput.take().steps_per_sec == pytest.approx(0.25)
