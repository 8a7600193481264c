"""Regularization of normalised images: erased rectangles, and mixtures of two examples.

Zero is the mean of normalised images. Mixtures combine both images and targets.
"""

import jax
import jax.numpy as jnp
import optax

Array = jax.Array

_AREA = (0.02, 0.4)  # share of the image (Zhong et al. 2020, section 4.1)
_ASPECT_RATIO = (0.3, 1 / 0.3)  # height / width (likewise)


def in_box(shape: tuple[int, ...], corner: Array, size: Array) -> Array:
    """Mask of a rectangle, bool [H, W, 1].

    Args:
        shape: height and width of the image, and anything after them.
        corner: first row and column, integers [2]; may lie outside of the image.
        size: height and width, integers [2].
    """
    rows, columns = (jnp.arange(length) for length in shape[:2])
    in_rows = (rows >= corner[0]) & (rows < corner[0] + size[0])
    in_columns = (columns >= corner[1]) & (columns < corner[1] + size[1])
    return (in_rows[:, None] & in_columns)[..., None]


def cutout(rng: Array, image: Array, size: int) -> Array:
    """Sets a square around a random pixel to zero (DeVries & Taylor 2017).

    Args:
        rng: random key.
        image: [H, W, C], normalised.
        size: side of the square in pixels; parts outside the image have no effect.

    Returns:
        [H, W, C] of the same dtype.
    """
    center = jax.random.randint(rng, (2,), 0, jnp.array(image.shape[:2]))
    box = in_box(image.shape, center - size // 2, jnp.array([size, size]))
    return jnp.where(box, 0, image)


def random_erasing(rng: Array, image: Array, probability: float) -> Array:
    """Sets a random rectangle to zero with a given probability (Zhong et al. 2020).

    The paper draws again until the rectangle fits; here it is clipped to the image. Zero is the
    paper's mean value (RE-M) where normalising subtracts the mean, and black with "zero_one".

    Args:
        rng: random key.
        image: [H, W, C], normalised.
        probability: of erasing; 0.5 in the paper cited.

    Returns:
        [H, W, C] of the same dtype.
    """
    height, width, _ = image.shape
    erase_rng, size_rng, place_rng = jax.random.split(rng, 3)
    low, high = (jnp.array(pair) for pair in zip(_AREA, _ASPECT_RATIO, strict=True))
    area, ratio = low + (high - low) * jax.random.uniform(size_rng, (2,))
    size = jnp.sqrt(height * width * area * jnp.stack([ratio, 1 / ratio]))  # height, width
    size = jnp.clip(jnp.round(size).astype(jnp.int32), 1, jnp.array([height, width]))
    corner = jax.random.randint(place_rng, (2,), 0, jnp.array([height, width]) - size + 1)
    erased = jnp.where(in_box(image.shape, corner, size), 0, image)
    return jnp.where(jax.random.bernoulli(erase_rng, probability), erased, image)


def one_hot_targets(labels: Array, num_classes: int, smoothing: float) -> Array:
    """Target probabilities with label smoothing (Szegedy et al. 2016, section 7).

    Args:
        labels: integers [B].
        num_classes: number of classes K.
        smoothing: fraction that is spread over all classes, including the true one.

    Returns:
        (1 - smoothing) * one-hot + smoothing / K, float32 [B, K].
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def mixup(rng: Array, images: Array, targets: Array, alpha: float) -> tuple[Array, Array]:
    """Mixes each example with another one of the batch (Zhang et al. 2018).

    As in the authors' code, the whole batch has one weight from Beta(alpha, alpha), and is mixed
    with itself in random order.

    Args:
        rng: random key.
        images: float [B, H, W, C].
        targets: float [B, K].
        alpha: above 0; small values mix little (0.1 to 0.4 for ImageNet in Zhang et al.).

    Returns:
        Images float [B, H, W, C] and targets float [B, K].
    """
    weight_rng, order_rng = jax.random.split(rng)
    weight = jax.random.beta(weight_rng, alpha, alpha)
    order = jax.random.permutation(order_rng, len(images))
    mixed_images = weight * images + (1 - weight) * images[order]
    mixed_targets = weight * targets + (1 - weight) * targets[order]
    return mixed_images, mixed_targets


def cutmix(rng: Array, images: Array, targets: Array, alpha: float) -> tuple[Array, Array]:
    """Replaces a box of each image by that of another one of the batch (Yun et al. 2019).

    The box is the same for the whole batch. Its fraction of the area is from Beta(alpha, alpha), it
    has the aspect ratio of the image and a uniform center, and is clipped to the image. Targets are
    weighted by the fraction of replaced pixels.

    Args:
        rng: random key.
        images: float [B, H, W, C].
        targets: float [B, K].
        alpha: above 0; 1 in Yun et al.

    Returns:
        Images float [B, H, W, C] and targets float [B, K].
    """
    share_rng, center_rng, order_rng = jax.random.split(rng, 3)
    shape = images.shape[1:3]
    height_width = jnp.array(shape)
    side = jnp.sqrt(1 - jax.random.beta(share_rng, alpha, alpha))  # share of height and width
    size = (side * height_width).astype(jnp.int32)
    center = jax.random.randint(center_rng, (2,), 0, height_width)
    box = in_box(shape, center - size // 2, size)
    order = jax.random.permutation(order_rng, len(images))
    replaced = jnp.mean(box.astype(targets.dtype))
    mixed_targets = (1 - replaced) * targets + replaced * targets[order]
    return jnp.where(box, images[order], images), mixed_targets
