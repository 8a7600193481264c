from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rattn_jax.augment import crop_and_flip, example_rngs, random_crop, random_flip


def images(n, height=6, width=5):
    return np.random.RandomState(0).randint(1, 256, (n, height, width, 3)).astype(np.uint8)


def numpy_crop(image, padding, row, column):
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return padded[row : row + image.shape[0], column : column + image.shape[1]]


def test_random_crop_is_one_of_the_crops_of_the_padded_image_and_each_is_reached(rng):
    image = images(1)[0]
    crops = jax.vmap(partial(random_crop, image=jnp.asarray(image), padding=2))(
        jax.random.split(rng, 500)
    )
    assert crops.dtype == jnp.uint8
    possible = {
        numpy_crop(image, 2, row, column).tobytes() for row in range(5) for column in range(5)
    }
    assert {np.asarray(crop).tobytes() for crop in crops} == possible


def test_random_flip_mirrors_left_and_right_half_of_the_time(rng):
    image = images(1)[0]
    flipped = jax.vmap(partial(random_flip, image=jnp.asarray(image)))(jax.random.split(rng, 1000))
    mirrored = [np.array_equal(out, image[:, ::-1]) for out in flipped]
    same = [np.array_equal(out, image) for out in flipped]
    assert sum(mirrored) + sum(same) == 1000
    assert abs(sum(mirrored) - 500) < 4 * np.sqrt(250)  # four standard deviations


def test_crop_and_flip_treats_images_on_their_own(rng):
    batch = images(64)
    rngs = jax.random.split(rng, 64)
    out = np.asarray(crop_and_flip(rngs, batch, crop_padding=1, flip=True))
    chosen = []
    for image, result in zip(batch, out, strict=True):
        candidates = {
            (row, column, flip): numpy_crop(image, 1, row, column)[:, :: -1 if flip else 1]
            for row in range(3)
            for column in range(3)
            for flip in (False, True)
        }
        (match,) = [key for key, value in candidates.items() if np.array_equal(value, result)]
        chosen.append(match)
    assert len(set(chosen)) > 12  # of 18


def test_crop_and_flip_can_be_switched_off(rng):
    batch = images(3)
    out = crop_and_flip(jax.random.split(rng, 3), batch, crop_padding=0, flip=False)
    np.testing.assert_array_equal(out, batch)


def test_rng_of_an_example_depends_on_seed_step_and_position_only():
    def key_data(seed, step, positions):
        rngs = example_rngs(seed, jnp.int32(step), jnp.asarray(positions))
        return [tuple(data) for data in np.asarray(jax.random.key_data(rngs))]

    whole = key_data(0, 5, [0, 1, 2, 3])
    assert len(set(whole)) == 4
    assert key_data(0, 5, [2, 3]) == whole[2:]
    assert not set(key_data(0, 6, [0, 1, 2, 3])) & set(whole)
    assert not set(key_data(1, 5, [0, 1, 2, 3])) & set(whole)
