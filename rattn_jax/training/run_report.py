"""Fills report.html in after each evaluation: what was evaluated, and what the masks do."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.batches import Batch, Normalization, normalize
from rattn_jax.data.loaders import Loader
from rattn_jax.models.attention import read_maps
from rattn_jax.models.residual_attention import Stage
from rattn_jax.parallel.mesh import is_main_process
from rattn_jax.report.mask_health import BINS, Observation, health_row
from rattn_jax.report.page import PAGE, Evaluated, Masks, run_page, shows_update
from rattn_jax.runs.console import Console
from rattn_jax.runs.files import replace_text
from rattn_jax.runs.metrics_log import MetricsFile
from rattn_jax.runs.workdir import RECORD
from rattn_jax.training.evaluation import EvalResult
from rattn_jax.training.state import TrainState

Array = jax.Array
Results = Mapping[str, EvalResult]  # by the names of the splits
Rows = Sequence[Mapping[str, Any]]  # lines of metrics.jsonl

_MAX_PROBED = 64  # images of which masks and responses are measured
_OVERLAYS = 8  # of them are shown


class ReportWriter:
    """The page of a run; of several processes, the main one draws it, and no other takes part.

    Args:
        folder: the run's folder.
        last_step: what the run goes on from; see `MetricsFile`.
        config: the run's config.
        model: network.
        loader: where the evaluated examples are.
        console: where to say that the page could not be drawn.
    """

    def __init__(
        self,
        folder: epath.Path,
        last_step: int,
        config: RunConfig,
        model: nn.Module,
        loader: Loader,
        console: Console,
    ) -> None:
        self._folder, self._last_step, self._config = folder, last_step, config
        self._probe = Probe(model, _OVERLAYS)
        self._loader, self._console = loader, console
        # Always the first images of the same split; no more than a batch has, so that they fit.
        self._split = "validation" if config.validation_examples else "test"
        self._num_probed = min(_MAX_PROBED, config.batch_size)
        self._draws = config.report and is_main_process()
        self._history: MetricsFile | None = None
        self._probed: Batch | None = None

    def is_missing(self, step: int) -> bool:
        """Whether the page of this step is missing; False in processes that draw none.

        A run may have been killed between an evaluation and its page.
        """
        path = self._folder / PAGE
        return self._draws and not (path.exists() and shows_update(path.read_text(), step))

    def update(self, state: TrainState, results: Results, rows: Rows) -> None:
        """Draws the page; if that fails, says why in a line, for a run is worth more than a page.

        Args:
            state: what was evaluated.
            results: of the splits, by name; the page is about the last one.
            rows: the lines of metrics.jsonl.
        """
        if not self._draws:
            return
        try:
            self.draw(state, results, rows)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self._console.say(f"{PAGE} could not be drawn ({reason}); the run goes on")

    def draw(self, state: TrainState, results: Results, rows: Rows) -> None:
        """Draws the page; see `update`."""
        split, shown = list(results.items())[-1]
        page = run_page(
            str(self._folder),
            # Keys that a run may change are as they are now, not as at its first start.
            json.loads((self._folder / RECORD).read_text()) | {"config": self._config.to_dict()},
            rows,
            {name: result.num_examples for name, result in results.items()},
            Evaluated(
                split,
                shown.confusion,
                shown.mistakes,
                self._images(split, shown.mistakes.position),
            ),
            self._masks(state),
        )
        replace_text(self._folder / PAGE, page)

    def _images(self, split: str, positions: Any) -> np.ndarray:
        if not len(positions):
            return np.zeros((0, 1, 1, 3), np.uint8)
        return np.asarray(self._loader.read(split, positions).images)

    def _masks(self, state: TrainState) -> Masks | None:
        if self._probed is None:
            count = min(self._num_probed, self._loader.num_examples(self._split))
            self._probed = self._loader.read(self._split, range(count))
        images, labels = self._probed
        seen = self._probe(
            # This process's own copy: computing with it needs no other process.
            jax.tree.map(lambda x: x.addressable_data(0), state.evaluated),
            images,
            self._loader.normalization,
        )
        if seen is None:
            return None
        row = health_row(int(state.step), self._split, len(labels), seen)
        if self._history is None:
            self._history = MetricsFile(self._folder / "mask_health.jsonl", self._last_step)
        if not any(r["step"] == row["step"] for r in self._history.rows):
            self._history.append(row)
        return Masks(
            self._split,
            np.asarray(images[:_OVERLAYS]),
            np.asarray(labels[:_OVERLAYS]),
            seen,
            self._history.rows,
        )


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
