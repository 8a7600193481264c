"""What the attention modules do with some fixed images: masks, and responses of the stages."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rattn_jax.data.batches import Normalization, normalize
from rattn_jax.models.attention import read_maps
from rattn_jax.models.residual_attention import Stage

Array = jax.Array

# Mask values are counted in this many parts of [0, 1], of 0.05 each: the outer two are those that
# count as saturated. What lies outside, as channel attention's values may, is counted with them.
BINS = 20


class Observation(NamedTuple):
    """What was seen.

    Attributes:
        masks: mean over channels of the masks of the first images, float32 [n, h, w], by module.
        means: mean of all mask values, by module.
        shares: shares of the mask values in the BINS parts of [0, 1], float32 [BINS], by module.
        responses: mean absolute value of each stage's output, by stage (paper, figure 4).
    """

    masks: dict[str, Any]
    means: dict[str, Any]
    shares: dict[str, Any]
    responses: dict[str, Any]


class Probe:
    """Runs the network on some images, on the device where the arrays are, and no other.

    Args:
        model: network.
        num_masks: of how many images the masks are wanted.
    """

    def __init__(self, model: nn.Module, num_masks: int) -> None:
        self._observe = jax.jit(partial(_observe, model=model, num_masks=num_masks))

    def __call__(
        self, variables: Any, images: Array | np.ndarray, normalization: Normalization
    ) -> Observation | None:
        """What is seen, on the host; None if the network has no attention modules.

        Args:
            variables: parameters and statistics of the network, as it takes them.
            images: uint8 [N, H, W, 3].
            normalization: of the images.
        """
        seen = self._observe(variables, images, normalization)
        return jax.device_get(seen) if seen.masks else None


def _observe(
    variables: Any,
    images: Array,
    normalization: Normalization,
    *,
    model: nn.Module,
    num_masks: int,
) -> Observation:
    _, collections = model.apply(
        variables,
        normalize(images, normalization),
        train=False,
        mutable=["intermediates"],
        capture_intermediates=lambda module, method: (
            isinstance(module, Stage) and method == "__call__"
        ),
    )
    intermediates = collections.get("intermediates", {})
    seen = Observation({}, {}, {}, {})
    for stage, values in intermediates.items():
        (output,) = values["__call__"]
        seen.responses[stage] = jnp.mean(jnp.abs(output), dtype=jnp.float32)
    for name, (mask, _, _) in read_maps(intermediates).items():
        seen.masks[name] = jnp.mean(mask[:num_masks], axis=-1, dtype=jnp.float32)
        seen.means[name] = jnp.mean(mask, dtype=jnp.float32)
        seen.shares[name] = _shares(jnp.asarray(mask, jnp.float32))
    return seen


def _shares(mask: Array) -> Array:
    edges = np.arange(1, BINS) / BINS
    below = [jnp.mean(mask < edge, dtype=jnp.float32) for edge in edges]
    return jnp.diff(jnp.stack(below), prepend=0.0, append=1.0)


def saturation(shares: np.ndarray) -> float:
    """Share of the values below 0.05 or from 0.95 on."""
    return float(shares[0] + shares[-1])


def entropy(shares: np.ndarray) -> float:
    """Entropy of the distribution over the parts: 0 if all values are alike, 1 if even."""
    shares = shares[shares > 0]
    return float(-np.sum(shares * np.log(shares)) / np.log(BINS)) + 0.0
