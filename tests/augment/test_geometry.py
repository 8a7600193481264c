from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rattn_jax.augment.geometry import random_crop, random_flip, random_resized_crop


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


def resized(image, sides, corner):
    """The crop with Pillow: linear interpolation."""
    height, width, _ = image.shape
    box = (corner[1], corner[0], corner[1] + sides[1], corner[0] + sides[0])
    planes = [
        Image.fromarray(image[..., c].astype(np.float32)).resize(
            (width, height), Image.Resampling.BILINEAR, box=box
        )
        for c in range(3)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


@pytest.mark.parametrize("area", [(0.08, 0.3), (0.3, 1.0), (1.0, 1.0)])
def test_random_resized_crop(rng, area):
    image = images(1, height=30, width=20)[0]
    for key in jax.random.split(rng, 8):
        share, skew, *place = np.asarray(jax.random.uniform(key, (4,)), np.float64)
        pixels = 600 * (area[0] + (area[1] - area[0]) * share)
        ratio = 0.75 * (16 / 9) ** skew
        sides = np.minimum(np.sqrt([pixels / ratio, pixels * ratio]), [30, 20])
        expected = resized(image, sides, place * (np.array([30, 20]) - sides))
        found = random_resized_crop(key, image.astype(np.float32), area=area)
        np.testing.assert_allclose(found, expected, atol=0.5)
        rounded = random_resized_crop(key, image, area=area)
        assert rounded.dtype == jnp.uint8
        np.testing.assert_array_equal(rounded, np.round(np.clip(found, 0, 255)))


def test_random_resized_crop_of_everything_changes_nothing(rng):
    image = images(1, height=7, width=7)[0]
    found = random_resized_crop(rng, image, area=(1.0, 1.0), aspect_ratio=(1.0, 1.0))
    np.testing.assert_array_equal(found, image)
