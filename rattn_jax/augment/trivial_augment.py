"""TrivialAugment: one random operation of random strength (Müller & Hutter, ICCV 2021)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rattn_jax.augment import pillow_ops

Array = jax.Array
Operation = Callable[[Array, Array, Array], Array]

_STRENGTHS = 31  # from 0 to 30 (paper, section 3)


def _signed(operation: Callable[[Array, Array], Array], largest: float) -> Operation:
    """`operation` with -largest to largest."""
    return lambda image, strength, sign: operation(image, sign * strength * largest)


def _enhanced(operation: Callable[[Array, Array], Array]) -> Operation:
    """`operation` with a factor of 0.01 to 1.99; 1 changes nothing."""
    return lambda image, strength, sign: operation(image, 1 + sign * strength * 0.99)


def _moved(operation: Callable[[Array, Array], Array]) -> Operation:
    """`operation` with up to 32 whole pixels, whatever the image's size."""
    return lambda image, strength, sign: operation(image, sign * jnp.floor(strength * 32))


# Functions of image, strength (0 to 1) and sign (-1 or 1). The ranges are those of the "wide"
# space (paper, table 1) as torchvision's TrivialAugmentWide has them: factors and slopes are
# drawn with a sign, and the largest threshold is 255.
OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength, sign: image,
    "autocontrast": lambda image, strength, sign: pillow_ops.autocontrast(image),
    "equalize": lambda image, strength, sign: pillow_ops.equalize(image),
    "rotate": _signed(pillow_ops.rotate, 135.0),  # degrees
    "solarize": lambda image, strength, sign: pillow_ops.solarize(image, 255 - 255 * strength),
    "color": _enhanced(pillow_ops.color),
    "posterize": lambda image, strength, sign: pillow_ops.posterize(
        image, 8 - jnp.round(6 * strength)
    ),
    "contrast": _enhanced(pillow_ops.contrast),
    "brightness": _enhanced(pillow_ops.brightness),
    "sharpness": _enhanced(pillow_ops.sharpness),
    "shear_x": _signed(pillow_ops.shear_x, 0.99),
    "shear_y": _signed(pillow_ops.shear_y, 0.99),
    "translate_x": _moved(pillow_ops.translate_x),
    "translate_y": _moved(pillow_ops.translate_y),
}


def trivial_augment(rng: Array, image: Array) -> Array:
    """Applies one of OPERATIONS, chosen uniformly, with uniform strength.

    Args:
        rng: random key.
        image: uint8 [H, W, 1 or 3].

    Returns:
        uint8 [H, W, C]; pixels from outside the image are black.
    """
    operation_rng, strength_rng, sign_rng = jax.random.split(rng, 3)
    index = jax.random.randint(operation_rng, (), 0, len(OPERATIONS))
    strength = jax.random.randint(strength_rng, (), 0, _STRENGTHS) / (_STRENGTHS - 1)
    sign = jax.random.rademacher(sign_rng, (), jnp.float32)
    return jax.lax.switch(index, list(OPERATIONS.values()), image, strength, sign)
