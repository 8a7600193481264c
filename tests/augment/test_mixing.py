import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rattn_jax.augment.regularization import cutmix, mixup, one_hot_targets

IMAGES = np.random.RandomState(0).uniform(1, 2, (5, 8, 6, 3)).astype(np.float32)
TARGETS = np.eye(5, dtype=np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_hot_targets(smoothing):
    expected = np.full((2, 4), smoothing / 4)
    expected[[0, 1], [3, 0]] += 1 - smoothing
    found = one_hot_targets(jnp.array([3, 0]), 4, smoothing)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup(rng, alpha):
    for key in jax.random.split(rng, 5):
        weight_rng, order_rng = jax.random.split(key)
        weight = float(jax.random.beta(weight_rng, alpha, alpha))
        order = np.asarray(jax.random.permutation(order_rng, 5))
        images, targets = mixup(key, IMAGES, TARGETS, alpha)
        np.testing.assert_allclose(
            images, weight * IMAGES + (1 - weight) * IMAGES[order], rtol=1e-6
        )
        np.testing.assert_allclose(
            targets, weight * TARGETS + (1 - weight) * TARGETS[order], rtol=1e-6
        )


def test_cutmix(rng):
    inside = []
    for key in jax.random.split(rng, 40):
        share_rng, center_rng, order_rng = jax.random.split(key, 3)
        side = np.sqrt(1 - float(jax.random.beta(share_rng, 1.0, 1.0)))
        height, width = int(np.float32(side) * 8), int(np.float32(side) * 6)
        row, column = jax.random.randint(center_rng, (2,), 0, np.array([8, 6]))
        top, left = int(row) - height // 2, int(column) - width // 2
        order = np.asarray(jax.random.permutation(order_rng, 5))
        part = np.s_[:, max(top, 0) : top + height, max(left, 0) : left + width]
        expected = IMAGES.copy()
        expected[part] = IMAGES[order][part]
        share = expected[part].size / expected.size
        images, targets = cutmix(key, IMAGES, TARGETS, 1.0)
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_allclose(
            targets, (1 - share) * TARGETS + share * TARGETS[order], rtol=1e-5, atol=1e-7
        )
        inside.append(share)
    assert min(inside) < 0.05
    assert max(inside) > 0.5


def test_weights_follow_the_beta_distribution(rng):
    batch = jnp.asarray(IMAGES), jnp.asarray(TARGETS)
    share = jax.jit(jax.vmap(lambda key: mixup(key, *batch, 0.2)[1].max()))
    found = np.asarray(share(jax.random.split(rng, 400)))
    # Beta(0.2, 0.2) has most of its weight near 0 and 1.
    assert (found > 0.95).mean() > 0.5
    assert found.min() < 0.65
