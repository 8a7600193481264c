import jax
import numpy as np
import pytest

from rattn_jax.training.packing import Packing
from tests.compare import assert_close, assert_equal
from tests.tiny import make_data, make_state, run_steps

ROWS = np.arange(32, dtype=np.int32).reshape(2, 16)  # two updates of 16 examples


def test_a_packed_state_is_a_few_vectors_and_comes_back_as_it_was():
    state = make_state()
    packing = Packing(state.params, state.batch_stats)
    packed = packing.pack_state(state)
    assert set(packed.params) == {"kernel", "other"}
    assert set(packed.batch_stats) == {"other"}
    assert len(jax.tree.leaves(packed.opt_state)) == 3  # momentum as two vectors, and a count
    assert_equal(packing.unpack_state(packed), state)


def test_kernels_are_in_one_vector_and_all_else_in_the_other():
    params = {
        "conv": {"kernel": np.ones((3, 3, 2, 4))},
        "classifier": {"bias": np.full(10, 2.0), "kernel": np.full((4, 10), 3.0)},
    }
    packed = Packing(params, {}).params.pack(params)
    np.testing.assert_array_equal(packed["kernel"], np.repeat([3.0, 1.0], [40, 72]))
    np.testing.assert_array_equal(packed["other"], np.full(10, 2.0))


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}, {"skip_nonfinite": True}])
def test_packed_updates_are_those_of_the_arrays_one_by_one(options):
    data = make_data(32)
    packed = run_steps(ROWS, data, use_scan=True, **options)
    apart = run_steps(ROWS, data, use_scan=True, by_value=False, **options)
    assert_close(packed, apart, rtol=1e-4, atol=1e-6)
