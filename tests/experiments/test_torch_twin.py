"""The networks against the same ones in PyTorch, in float64."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

import rattn_jax

torch = pytest.importorskip("torch")

from experiments.torch_twin import NETWORKS, create_twin, state_dict  # noqa: E402

# Sides of the images, changes for both networks, the masks of ours. The first has p = 2; in the
# second odd maps are pooled, too.
RUNS = {
    "attention452_cifar": (8, {"widths": (8,), "modules_per_stage": (2,), "t": 1, "r": 2}, (1,)),
    "attention56": (72, {"widths": (8, 12, 16)}, (3, 2, 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_twin_has_the_attributes_of_the_network(name):
    model = rattn_jax.create_model(name, 10)
    twin = dataclasses.asdict(NETWORKS[name])
    assert {key: getattr(model, key) for key in twin} == twin
    assert model.mask_poolings == (3, 2, 1)  # as the twin's, which are not to be chosen


def random_variables(model, images):
    """Variables of the model, such that no map vanishes or explodes."""
    generator = np.random.RandomState(0)
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    return jax.tree.map(
        lambda leaf: (
            generator.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])
            if len(leaf.shape) > 1
            else generator.uniform(0.5, 1.5, leaf.shape)
        ),
        shapes,
    )


@pytest.mark.parametrize("name", RUNS)
def test_logits(name):
    size, keywords, poolings = RUNS[name]
    model = rattn_jax.create_model(name, 10, mask_poolings=poolings, **keywords)
    images = np.random.RandomState(1).normal(size=(3, size, size, 3))
    variables = random_variables(model, images)
    twin = create_twin(name, 10, **keywords).double()
    twin.load_state_dict(state_dict(**variables))

    for train in (False, True):
        with jax.enable_x64(True):
            apply = jax.jit(partial(model.apply, train=train, mutable=["batch_stats"]))
            logits, _ = apply(variables, images)
        with torch.no_grad():
            twin_logits = twin.train(train)(torch.from_numpy(images).permute(0, 3, 1, 2))
        np.testing.assert_allclose(twin_logits, logits, rtol=1e-9, atol=1e-9)
