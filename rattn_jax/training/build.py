"""From the keys of a config to what training is made of; below this, everything has keywords."""

from functools import partial
from typing import Any

import flax.linen as nn
import optax
from ml_collections import ConfigDict

from rattn_jax.augment import augment_images, regularize
from rattn_jax.config.schema import model_keywords
from rattn_jax.models import create_model
from rattn_jax.parallel.mesh import AXIS
from rattn_jax.training.optimizer import make_optimizer, make_schedule


def build_model(config: ConfigDict, num_classes: int) -> nn.Module:
    """The network, as it is trained."""
    keywords = model_keywords(config)
    if config.sync_batch_norm:
        keywords["norm_axis_name"] = AXIS
    return create_model(config.model.name, num_classes, **keywords)


def build_optimizer(config: ConfigDict) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Schedule of the learning rate, and the optimizer that follows it."""
    optimizer = config.optimizer
    schedule = make_schedule(
        optimizer.schedule,
        learning_rate=optimizer.learning_rate,
        num_train_steps=config.num_train_steps,
        warmup_steps=optimizer.warmup_steps,
        boundaries=optimizer.boundaries,
        decay=optimizer.decay,
    )
    return schedule, make_optimizer(
        optimizer.name,
        schedule,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        decay_norm_and_bias=optimizer.decay_norm_and_bias,
        clip_norm=optimizer.clip_norm,
        stacked=bool(config.model.scan_modules),
        freeze=config.freeze or (),
    )


def build_recipe(config: ConfigDict, num_classes: int, *, crops_on_device: bool) -> dict[str, Any]:
    """Keywords of `prepare`, which say how images and labels are changed."""
    augmentation = dict(config.augmentation)
    if not crops_on_device:
        augmentation["scale_crop"] = None  # the host crops, from the whole image
    return {
        "augment": partial(augment_images, **augmentation),
        "regularize": partial(regularize, **config.regularization),
        "num_classes": num_classes,
        "label_smoothing": config.label_smoothing,
        "seed": config.seed,
    }
