from rattn_jax.throughput import Throughput


def test_only_the_time_between_start_and_stop_counts():
    now = 0.0
    throughput = Throughput(clock=lambda: now)
    assert throughput.take() is None
    throughput.start()
    throughput.add(60)
    now = 2.0
    throughput.start()  # runs already
    throughput.add(40)
    now = 4.0
    throughput.stop()
    now = 100.0  # an evaluation
    throughput.stop()
    assert throughput.take() == 25
    assert throughput.take() is None
