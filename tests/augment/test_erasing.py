import jax
import numpy as np
import pytest

from rattn_jax.augment.regularization import cutout, random_erasing

IMAGE = np.random.RandomState(0).uniform(1, 2, (12, 9, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 4, 5, 40])
def test_cutout(rng, size):
    shares = []
    for key in jax.random.split(rng, 50):
        top, left = jax.random.randint(key, (2,), 0, np.array([12, 9])) - size // 2
        expected = IMAGE.copy()
        expected[max(top, 0) : top + size, max(left, 0) : left + size] = 0
        found = cutout(key, IMAGE, size)
        np.testing.assert_array_equal(found, expected)
        shares.append(np.mean(np.asarray(found) == 0))
    assert min(shares) > 0
    if size == 5:
        assert max(shares) == pytest.approx(25 / 108)
        assert min(shares) < 25 / 108, "it may lie partly outside"


def test_random_erasing(rng):
    erase = jax.jit(jax.vmap(lambda key: random_erasing(key, IMAGE, 0.5)))
    found = np.asarray(erase(jax.random.split(rng, 600)))
    changed = (found != IMAGE).any(axis=-1)
    used = changed.any(axis=(1, 2))
    assert used.mean() == pytest.approx(0.5, abs=0.08)
    for mask in changed[used]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all(), "a rectangle"
    areas = changed[used].mean(axis=(1, 2))
    assert areas.min() < 0.05
    assert 0.35 < areas.max() < 0.45
    assert areas.mean() == pytest.approx(0.21, abs=0.02)
    assert not found[changed].any(), "zero, the mean"


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0), (1.0, 50)])
def test_probability(rng, probability, share):
    found = [random_erasing(key, IMAGE, probability) for key in jax.random.split(rng, 50)]
    assert sum((image != IMAGE).any() for image in found) == share


def test_one_pixel(rng):
    pixel = IMAGE[:1, :1]
    np.testing.assert_array_equal(cutout(rng, pixel, 1), np.zeros_like(pixel))
    assert (random_erasing(rng, pixel, 1.0) != pixel).all()
