"""Collects the contents of the report page after an evaluation.

page = PageProbe(config, model, loader).look(state, results)
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.batches import Batch, Normalization, normalize
from rattn_jax.data.loaders import Loader
from rattn_jax.models.attention import read_maps
from rattn_jax.models.stages import apply_and_watch
from rattn_jax.report.mask_health import BINS, Observation
from rattn_jax.report.mistakes import MAX_PICTURES, Mistaken
from rattn_jax.report.page import Evaluated
from rattn_jax.training.evaluation import EvalResult
from rattn_jax.training.state import TrainState

Array = jax.Array

_MAX_PROBED = 64  # images of which masks and responses are measured
_OVERLAYS = 8  # of them are shown


class PageData(NamedTuple):
    """Contents of the report page.

    Attributes:
        step: number of updates done.
        counts: number of examples of each evaluated split.
        evaluated: the last of these splits.
        num_parameters: parameters of the network.
        probed_split: split of the images on which the masks were recorded.
        images: the first of these images, uint8 [n, H, W, 3].
        labels: their classes, int32 [n].
        num_probed: number of these images.
        seen: statistics of the masks; None if the network has no attention modules.
    """

    step: int
    counts: Mapping[str, int]
    evaluated: Evaluated
    num_parameters: int
    probed_split: str
    images: np.ndarray
    labels: np.ndarray
    num_probed: int
    seen: Observation | None


class PageProbe:
    """Collects the contents of a page, on one device and without other processes.

    Args:
        config: the run's config.
        model: network.
        loader: source of the evaluated examples.
        label_sets: see `losses.label_sets`.
    """

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        loader: Loader,
        label_sets: np.ndarray | None = None,
    ) -> None:
        self._probe, self._loader, self._label_sets = Probe(model, _OVERLAYS), loader, label_sets
        # Always the first images of one split; no more than a batch, so that they fit in memory.
        self._split = "validation" if config.validation_examples else "test"
        self._max_probed = min(_MAX_PROBED, config.batch_size)
        self._probed: Batch | None = None

    def look(self, state: TrainState, results: Mapping[str, EvalResult]) -> PageData:
        """Collects the contents of the page.

        Args:
            state: the evaluated state.
            results: results by split; the page shows the last one.
        """
        split, shown = list(results.items())[-1]
        positions = np.asarray(shown.mistakes.indices).tolist()
        mistaken = Mistaken(
            split,
            shown.num_examples,
            shown.mistakes,
            self._loader.names(split, positions),
            self._images(split, positions[:MAX_PICTURES]),
        )
        if self._probed is None:
            count = min(self._max_probed, self._loader.num_examples(self._split))
            self._probed = self._loader.read(self._split, range(count))
        images, labels = self._probed
        if self._label_sets is not None:  # the first of the classes of each image
            sets = self._label_sets[labels]
            labels = np.where(sets.any(axis=1), sets.argmax(axis=1), -1)
        seen = self._probe(
            # This process's own copy, so that no other process has to take part.
            jax.tree.map(lambda x: x.addressable_data(0), state.evaluated),
            images,
            self._loader.normalization,
        )
        return PageData(
            step=int(state.step),
            counts={name: result.num_examples for name, result in results.items()},
            evaluated=Evaluated(split, shown.confusion, shown.calibration, mistaken),
            num_parameters=sum(x.size for x in jax.tree.leaves(state.params)),
            probed_split=self._split,
            images=np.asarray(images[:_OVERLAYS]),
            labels=np.asarray(labels[:_OVERLAYS]),
            num_probed=len(labels),
            seen=seen,
        )

    def _images(self, split: str, positions: Any) -> np.ndarray:
        if not len(positions):
            return np.zeros((0, 1, 1, 3), np.uint8)
        return np.asarray(self._loader.read(split, positions).images)


class Probe:
    """Runs the network on some images, on the device that holds the arrays.

    Args:
        model: network.
        num_masks: number of images whose masks are returned.
    """

    def __init__(self, model: nn.Module, num_masks: int) -> None:
        self._observe = jax.jit(partial(_observe, model=model, num_masks=num_masks))

    def __call__(
        self, variables: Any, images: Array | np.ndarray, normalization: Normalization
    ) -> Observation | None:
        """Statistics of the masks, on the host; None if the network has no attention modules.

        Args:
            variables: parameters and batch statistics of the network.
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
    intermediates, outputs = apply_and_watch(model, variables, normalize(images, normalization))
    seen = Observation({}, {}, {}, {})
    for stage, output in outputs.items():
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
