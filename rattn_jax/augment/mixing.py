"""Batches whose images and targets are mixtures of two examples; the targets to mix."""

import jax
import jax.numpy as jnp
import optax

from rattn_jax.augment.regularization import in_box

Array = jax.Array


def one_hot_targets(labels: Array, num_classes: int, smoothing: float) -> Array:
    """Probabilities to learn, with label smoothing (Szegedy et al. 2016, section 7).

    Args:
        labels: integers [B].
        num_classes: number of classes K.
        smoothing: share that is spread over all classes, the right one included.

    Returns:
        (1 - smoothing) * one-hot + smoothing / K, float32 [B, K].
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def mixup(rng: Array, images: Array, targets: Array, alpha: float) -> tuple[Array, Array]:
    """Weighted means of each example and another one of the batch (Zhang et al. 2018).

    As in the paper's code, one weight from Beta(alpha, alpha) for the whole batch, and the others
    are the same batch in random order.

    Args:
        rng: random key.
        images: float [B, H, W, C].
        targets: float [B, K].
        alpha: above 0; small ones change little (0.1 to 0.4 for ImageNet in the paper cited).

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
    """A box of each image replaced by that of another one of the batch (Yun et al. 2019).

    The box and its place are the same for the whole batch. Its share of the area is from
    Beta(alpha, alpha), its aspect ratio is the image's, its centre is uniform; what lies outside
    of the image is cut off. The targets are weighted with the share of pixels that were replaced.

    Args:
        rng: random key.
        images: float [B, H, W, C].
        targets: float [B, K].
        alpha: above 0; 1 in the paper cited.

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
