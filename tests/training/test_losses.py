"""The training loss, and factors of the classes in it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.utils.class_weight import compute_class_weight

from rattn_jax.config.load import parse_config
from rattn_jax.data import open_dataset
from rattn_jax.data.catalog import build_spec
from rattn_jax.data.dataset import DatasetSpec
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import make_mesh
from rattn_jax.training.losses import class_weights, training_losses
from rattn_jax.training.step_functions import build_steps
from tests.tiny import make_config


def test_balanced_factors_are_those_of_scikit_learn():
    config = make_config(class_weights="balanced")
    spec = build_spec(parse_config(config))
    labels = open_dataset("digits").train.labels()
    expected = compute_class_weight("balanced", classes=np.arange(10), y=labels)
    np.testing.assert_allclose(class_weights("balanced", spec), expected)
    some = dataclasses.replace(spec, counts=(6, 0, 2, 0))
    expected = compute_class_weight("balanced", classes=np.arange(2), y=[0] * 6 + [1] * 2)
    np.testing.assert_allclose(class_weights("balanced", some), [expected[0], 0, expected[1], 0])
    config.validation_examples = 20
    assert spec.counts == tuple(np.bincount(labels).tolist())
    held_out = build_spec(parse_config(config)).counts
    assert held_out == tuple(count - 2 for count in spec.counts)


def test_factors_as_they_are_given():
    spec = DatasetSpec(3, 8, 10, 5)
    assert class_weights(None, spec) is None
    assert class_weights((1, 2.5, 0), spec) == (1.0, 2.5, 0.0)
    with pytest.raises(UsageError, match="class_weights has 2 numbers: must have one for each of"):
        class_weights((1, 2), spec)


@pytest.mark.parametrize("value", ["even", (1, -1), (0.0, 0.0), (1, float("nan")), ("a",), 2])
def test_values_that_are_none(value):
    with pytest.raises(
        UsageError, match=r"class_weights=.* is out of range: it must be 'balanced'"
    ):
        parse_config(make_config(class_weights=value))


def test_the_loss_is_weighted():
    """Of zero logits it is log(10) times the mean factor."""
    factors = np.arange(1.0, 11.0)
    targets = optax.smooth_labels(jax.nn.one_hot(jnp.arange(4), 10), 0.1)
    found = training_losses(jnp.zeros((4, 10)), targets, tuple(factors.tolist()))
    np.testing.assert_allclose(found, targets @ factors * np.log(10), rtol=1e-5)
    logits = jax.random.normal(jax.random.key(0), (4, 10))
    plain = optax.softmax_cross_entropy(logits, targets)
    np.testing.assert_array_equal(training_losses(logits, targets), plain)
    np.testing.assert_array_equal(training_losses(logits, targets, (2.0,) * 10), 2 * plain)


def test_an_update_weights_its_loss():
    steps = build_steps(
        parse_config(make_config(class_weights="balanced")),
        DatasetSpec(2, 8, 4, 4, counts=(3, 1)),
        make_mesh(jax.devices()[:1]),
    )
    assert steps.rule.class_weights == (4 / 6, 2.0)
