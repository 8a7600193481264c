"""What the train step calls."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rattn_jax.augment import augment_images, example_rngs, pca_lighting, regularize
from rattn_jax.augment.color import _EIGENVALUES, _EIGENVECTORS
from rattn_jax.augment.geometry import random_crop, random_flip
from rattn_jax.config.schema import AugmentationConfig, RegularizationConfig
from rattn_jax.data.batches import Batch, Normalization, StreamedData
from rattn_jax.errors import UsageError
from rattn_jax.training.steps import Preprocessing, prepare

IMAGES = np.random.RandomState(0).randint(1, 256, (64, 6, 5, 3)).astype(np.uint8)
NORMALISED = IMAGES.astype(np.float32) / 64 - 2
TARGETS = np.eye(8, dtype=np.float32)[np.arange(64) % 8]


def numpy_crop(image, padding, row, column):
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return padded[row : row + image.shape[0], column : column + image.shape[1]]


def test_crops_and_flips_treat_images_on_their_own(rng):
    out = augment_images(jax.random.split(rng, 64), IMAGES, crop_padding=1, flip=True)
    assert out.dtype == jnp.float32
    chosen = []
    for image, result in zip(IMAGES, out, strict=True):
        candidates = {
            (row, column, flip): numpy_crop(image, 1, row, column)[:, :: -1 if flip else 1]
            for row in range(3)
            for column in range(3)
            for flip in (False, True)
        }
        (match,) = [key for key, value in candidates.items() if np.array_equal(value, result)]
        chosen.append(match)
    assert len(set(chosen)) > 12  # of 18


def test_crop_and_flip_have_keys_of_their_own(rng):
    rngs = jax.random.split(rng, 64)
    out = augment_images(rngs, IMAGES, crop_padding=1, flip=True)
    for_crop, for_flip = jax.vmap(jax.random.split, out_axes=1)(rngs)
    cropped = jax.vmap(partial(random_crop, padding=1))(for_crop, IMAGES)
    np.testing.assert_array_equal(out, jax.vmap(random_flip)(for_flip, cropped))


@pytest.mark.parametrize(
    "option",
    [
        {"resized_crop_area": (0.3, 0.9)},
        {"crop_padding": 1},
        {"flip": True},
        {"trivial_augment": True},
        {"lighting": 0.1},
    ],
)
def test_each_augmentation_can_be_switched_on_and_off(rng, option):
    rngs = jax.random.split(rng, 64)
    np.testing.assert_array_equal(augment_images(rngs, IMAGES), IMAGES)
    off = jax.make_jaxpr(augment_images)(rngs, IMAGES)
    on = jax.make_jaxpr(lambda *args: augment_images(*args, **option))(rngs, IMAGES)
    assert len(on.eqns) > len(off.eqns)
    changed = jax.jit(lambda *args: augment_images(*args, **option))(rngs, IMAGES)
    assert (changed.shape, changed.dtype) == (IMAGES.shape, jnp.float32)
    assert 20 < np.any(changed != IMAGES, axis=(1, 2, 3)).sum() <= 64


@pytest.mark.parametrize(
    "option", [{"cutout": 3}, {"erasing": 0.9}, {"mixup": 0.5}, {"cutmix": 50.0}]
)
def test_each_regularization_can_be_switched_on_and_off(rng, option):
    rngs = jax.random.split(rng, 64)
    images, targets = regularize(rngs, NORMALISED, TARGETS)
    assert images is NORMALISED
    assert targets is TARGETS
    images, targets = jax.jit(lambda *args: regularize(*args, **option))(rngs, NORMALISED, TARGETS)
    assert (images != NORMALISED).any()
    mixes = {"mixup", "cutmix"} & set(option)
    assert (targets != TARGETS).any() == bool(mixes)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)


def test_with_both_kinds_of_mixing_a_batch_takes_one(rng):
    both = jax.jit(lambda rngs: regularize(rngs, NORMALISED, TARGETS, mixup=0.5, cutmix=0.5))
    pasted = []
    for key in jax.random.split(rng, 40):
        images, _ = both(jax.random.split(key, 64))
        # Pasting copies pixels; mixing makes new ones.
        pasted.append(np.isin(np.asarray(images), NORMALISED).all())
    assert 8 < sum(pasted) < 32


@pytest.mark.parametrize("option", [{"mixup": 0.5}, {"cutmix": 50.0}])
def test_mixing_ends_so_many_updates_before_the_end(rng, option):
    regularization = RegularizationConfig(mixing_off_last_steps=3, **option)
    preprocessing = Preprocessing(
        AugmentationConfig(crop_padding=0, flip=False), regularization, 64, num_train_steps=10
    )
    data = StreamedData(Normalization(np.zeros((), np.float32), np.ones((), np.float32)))
    batch = Batch(IMAGES, np.arange(64))

    @jax.jit
    def targets_of(step):
        return prepare(batch, data, step, jnp.arange(64), preprocessing)[1]

    mixed = [step for step in range(10) if np.any(targets_of(jnp.int32(step)) != np.eye(64))]
    assert mixed == [0, 1, 2, 3, 4, 5, 6]


def test_rng_of_an_example_depends_on_seed_step_and_position_only():
    def key_data(seed, step, positions):
        rngs = example_rngs(seed, jnp.int32(step), jnp.asarray(positions))
        return [tuple(data) for data in np.asarray(jax.random.key_data(rngs))]

    whole = key_data(0, 5, [0, 1, 2, 3])
    assert len(set(whole)) == 4
    assert key_data(0, 5, [2, 3]) == whole[2:]
    assert not set(key_data(0, 6, [0, 1, 2, 3])) & set(whole)
    assert not set(key_data(1, 5, [0, 1, 2, 3])) & set(whole)
    for seed in (0, 7, 2**31, 2**32 - 1):  # as a number, or as an argument of a compiled step
        traced = jax.jit(lambda seed: jax.random.key_data(example_rngs(seed, 5, jnp.arange(4))))
        found = [tuple(data) for data in np.asarray(traced(np.uint32(seed)))]
        assert found == key_data(seed, 5, [0, 1, 2, 3])


def test_lighting_adds_principal_components(rng):
    image = IMAGES[0].astype(np.float32)
    draws = np.asarray(jax.random.normal(rng, (3,)), np.float64)
    shift = sum(
        255 * 0.1 * draws[i] * _EIGENVALUES[i] * np.array(_EIGENVECTORS)[:, i] for i in range(3)
    )
    np.testing.assert_allclose(pca_lighting(rng, image, 0.1), image + shift, rtol=1e-5)
    vectors = np.array(_EIGENVECTORS)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=2e-3)


def test_lighting_wants_colours(rng):
    with pytest.raises(UsageError, match=r"lighting=0.1 needs images of 3 channels, not 1"):
        pca_lighting(rng, IMAGES[0, ..., :1].astype(np.float32), 0.1)
