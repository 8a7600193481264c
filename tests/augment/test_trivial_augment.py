"""Each operation against Pillow's, and the choice among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from rattn_jax.augment.pillow_ops import (
    affine,
    autocontrast,
    brightness,
    color,
    contrast,
    equalize,
    posterize,
    rotate,
    sharpness,
    solarize,
)
from rattn_jax.augment.trivial_augment import _STRENGTHS, OPERATIONS, trivial_augment

RANDOM = np.random.RandomState(0).randint(0, 256, (32, 31, 3)).astype(np.uint8)
SMOOTH = np.asarray(
    Image.fromarray(RANDOM[:4, :4] // 2 + 40).resize((31, 32), Image.Resampling.BICUBIC)
)
FLAT = np.full((5, 7, 3), 77, np.uint8)
BASE = jnp.asarray(RANDOM)
IMAGES = [jnp.asarray(image) for image in (RANDOM, SMOOTH, FLAT, RANDOM[:1, :1])]


def check(found, expected, tolerance=0):
    assert found.dtype == jnp.uint8
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found).astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("image", IMAGES)
def test_operations_without_strength(image):
    pillow = Image.fromarray(np.asarray(image))
    check(equalize(image), ImageOps.equalize(pillow))
    check(autocontrast(image), ImageOps.autocontrast(pillow))


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_posterize(image, bits):
    check(posterize(image, bits), ImageOps.posterize(Image.fromarray(np.asarray(image)), bits))


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("threshold", [0.0, 77.0, 127.5, 255.0])
def test_solarize(image, threshold):
    check(
        solarize(image, threshold), ImageOps.solarize(Image.fromarray(np.asarray(image)), threshold)
    )


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("factor", [0.01, 0.5, 1.0, 1.99])
@pytest.mark.parametrize(
    ("operation", "enhancer"),
    [
        (brightness, ImageEnhance.Brightness),
        (color, ImageEnhance.Color),
        (contrast, ImageEnhance.Contrast),
        (sharpness, ImageEnhance.Sharpness),
    ],
)
def test_enhancers(image, factor, operation, enhancer):
    expected = enhancer(Image.fromarray(np.asarray(image))).enhance(factor)
    check(operation(image, factor), expected, tolerance=1 if factor != 1 else 0)


@pytest.mark.parametrize("image", IMAGES)
def test_grey_is_exact(image):
    pillow = Image.fromarray(np.asarray(image))
    check(color(image, 0.0), ImageEnhance.Color(pillow).enhance(0.0))
    check(contrast(image, 0.0), ImageEnhance.Contrast(pillow).enhance(0.0))


def differing(found, expected):
    """Share of pixels that differ: where a coordinate falls between two, either may be taken."""
    return (np.asarray(found) != np.asarray(expected)).any(axis=-1).mean()


@pytest.mark.parametrize("degrees", [-135.0, -30.0, 0.0, 7.3, 91.0, 135.0])
def test_rotate(degrees):
    expected = Image.fromarray(RANDOM).rotate(degrees, Image.Resampling.NEAREST)
    assert differing(rotate(BASE, degrees), expected) < 0.02


@pytest.mark.parametrize("degrees", [-135.0, 135.0])
def test_rotation_differs_from_pillows_in_as_few_pixels_as_it_says(degrees):
    number = np.arange(32 * 32).reshape(32, 32)
    image = np.stack([number // 256, number % 256, number * 0 + 1], axis=-1).astype(np.uint8)
    expected = Image.fromarray(image).rotate(degrees, Image.Resampling.NEAREST)
    found = np.asarray(jax.jit(rotate)(image, degrees))
    assert np.any(found != np.asarray(expected), axis=-1).sum() <= 23


@pytest.mark.parametrize(
    "matrix",
    [(1, 0.4, 0, 0, 1, 0), (1, 0, 0, -0.99, 1, 0), (1, 0, 5.2, 0, 1, 0), (1, 0, 0, 0, 1, -32)],
)
def test_affine(matrix):
    expected = Image.fromarray(RANDOM).transform(
        (31, 32), Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST
    )
    assert (
        differing(
            affine(jnp.asarray(RANDOM), jnp.array(matrix, jnp.float32).reshape(2, 3)), expected
        )
        < 0.02
    )


# (Müller & Hutter 2021, table 1, "wide"), at full strength with a positive sign.
STRONGEST = {
    "identity": RANDOM,
    "autocontrast": autocontrast(BASE),
    "equalize": equalize(BASE),
    "rotate": rotate(BASE, 135.0),
    "solarize": solarize(BASE, 0.0),
    "color": color(BASE, 1.99),
    "posterize": posterize(BASE, 2),
    "contrast": contrast(BASE, 1.99),
    "brightness": brightness(BASE, 1.99),
    "sharpness": sharpness(BASE, 1.99),
    "shear_x": affine(BASE, jnp.array([[1, 0.99, 0], [0, 1, 0]], jnp.float32)),
    "shear_y": affine(BASE, jnp.array([[1, 0, 0], [0.99, 1, 0]], jnp.float32)),
    "translate_x": affine(BASE, jnp.array([[1, 0, 32], [0, 1, 0]], jnp.float32)),
    "translate_y": affine(BASE, jnp.array([[1, 0, 0], [0, 1, 32]], jnp.float32)),
}


def test_there_are_14_operations_of_the_published_strengths():
    assert STRONGEST.keys() == OPERATIONS.keys()
    for name, expected in STRONGEST.items():
        found = OPERATIONS[name](jnp.asarray(RANDOM), jnp.float32(1), jnp.float32(1))
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_without_strength_nothing_changes():
    for name in OPERATIONS.keys() - {"autocontrast", "equalize", "solarize"}:
        found = OPERATIONS[name](jnp.asarray(RANDOM), jnp.float32(0), jnp.float32(1))
        np.testing.assert_array_equal(found, RANDOM, err_msg=name)


def test_every_operation_is_drawn_at_many_strengths(rng):
    draw = jax.jit(jax.vmap(trivial_augment, in_axes=(0, None)))
    found = draw(jax.random.split(rng, 700), jnp.asarray(RANDOM))
    assert found.dtype == jnp.uint8
    drawn = {image.tobytes() for image in np.asarray(found)}
    levels = jnp.linspace(0, 1, _STRENGTHS)
    for name, operation in OPERATIONS.items():
        every = jax.jit(jax.vmap(operation, in_axes=(None, 0, None)))
        own = {
            image.tobytes()
            for sign in (-1.0, 1.0)
            for image in np.asarray(every(jnp.asarray(RANDOM), levels, sign))
        }
        assert len(own & drawn) >= min(len(own), 10), name
