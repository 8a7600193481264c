"""The smallest trained network: of `tests/tiny.py`, with weights that are not neutral."""

from functools import partial

import jax
import numpy as np
from etils import epath

from rattn_jax.config.load import parse_config
from rattn_jax.data.batches import Normalization
from rattn_jax.inference.network import Classifier
from tests.tiny import make_config, make_model


def random_variables(model, images):
    """Variables of which none is neutral, as those of a new batch norm are."""
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    generator = np.random.RandomState(3)

    def values(leaf):
        if leaf.ndim == 1:
            return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return generator.normal(0, scale, leaf.shape).astype(np.float32)

    return jax.tree.map(values, shapes)


def make_classifier():
    """For images of 8x8, of ten classes named a to j."""
    model = make_model()
    generator = np.random.RandomState(0)
    mean = generator.uniform(100, 150, (8, 8, 3)).astype(np.float32)
    return Classifier(
        folder=epath.Path("run"),
        step=3,
        config=parse_config(make_config()),
        model=model,
        variables=random_variables(model, np.zeros((1, 8, 8, 3), np.float32)),
        class_names=tuple("abcdefghij"),
        image_size=8,
        crop_fraction=1.0,
        normalization=Normalization(mean, np.float32(1 / 64)),
    )
