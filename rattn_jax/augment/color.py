"""Random color of the lighting of an image."""

import jax
import jax.numpy as jnp

from rattn_jax.errors import UsageError

Array = jax.Array

# Principal components of the RGB values, scaled to [0, 1], of ImageNet's training images
# (facebook/fb.resnet.torch, datasets/imagenet.lua). A row for each of R, G, B; a column for each
# component.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def pca_lighting(rng: Array, image: Array, std: float) -> Array:
    """Adds a random color to all pixels, along the principal components of ImageNet.

    This is the color augmentation of AlexNet (Krizhevsky et al. 2012, section 4.1), with a
    standard deviation of 0.1 there.

    Args:
        rng: random key.
        image: float [H, W, 3], RGB on the scale 0 to 255.
        std: standard deviation of the factors of the eigenvalues.

    Returns:
        float [H, W, 3]; values may leave the range 0 to 255.

    Raises:
        UsageError: the image does not have three channels.
    """
    if image.shape[-1] != 3:
        raise UsageError(
            f"augmentation.lighting={std} needs images of 3 channels, not {image.shape[-1]}: "
            "set it to 0"
        )
    factors = std * jax.random.normal(rng, (3,)) * jnp.array(_EIGENVALUES)
    color = jnp.sum(jnp.array(_EIGENVECTORS) * factors, axis=1)
    return image + (255 * color).astype(image.dtype)
