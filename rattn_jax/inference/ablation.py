"""Measures how much each attention module matters: the error with its masks replaced.

`zero` replaces the mask of a module by 0 (with attention residual learning the trunk passes
unchanged), `mean` by its mean over the examples, `shuffled` by the mask of another example.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rattn_jax.data.dataset import Source
from rattn_jax.errors import UsageError
from rattn_jax.inference.examples import none_counts, open_split, read_batches
from rattn_jax.inference.network import Classifier
from rattn_jax.models.attention import LocalMask, SoftMask, in_order

Array = jax.Array

REPLACEMENTS = ("zero", "mean", "shuffled")
ALL = "all"


@dataclasses.dataclass(frozen=True)
class ModuleErrors:
    """Errors with the masks of a module replaced.

    Attributes:
        module: name of the module; "all" for all modules at once.
        mask_mean: mean of its masks; None for "all".
        errors: error_top1 by replacement, fractions.
    """

    module: str
    mask_mean: float | None
    errors: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Errors of a split with and without replaced masks.

    Attributes:
        split: name of the split.
        num_examples: number of evaluated examples.
        error: error_top1 as trained, a fraction.
        modules: errors with replaced masks, by module.
    """

    split: str
    num_examples: int
    error: float
    modules: list[ModuleErrors]


class _Batch(NamedTuple):
    images: np.ndarray  # uint8 [B, S, S, 3]
    labels: np.ndarray  # int32 [B]
    partners: np.ndarray  # int32 [B]: whose mask to take, when they are shuffled
    counts: np.ndarray  # bool [B], False for padding and excluded examples


def ablate_masks(
    network: Classifier,
    split: str = "test",
    *,
    batch_size: int = 64,
    num_examples: int | None = None,
) -> Ablation:
    """Evaluates a split as trained, and with masks replaced.

    Args:
        network: a trained network.
        split: "test", "train" or, where the run holds some out, "validation".
        batch_size: images per batch, or about so many; masks are shuffled within a batch.
        num_examples: number of examples, a fixed random choice; None takes all.

    Raises:
        UsageError: no attention modules, no such split, a dataset that cannot be opened, no
            example that counts, or batches of one image.
        DataError: examples that cannot be used.
    """
    shapes = _mask_shapes(network)
    names = list(shapes)
    examples, excluded = open_split(network, split, num_examples)
    batch_size = _leaving_none_alone(len(examples), batch_size)
    evaluate = jax.jit(partial(_evaluate, network))
    variables = jax.device_put(network.variables)

    def measure(chosen: list[np.ndarray], means: dict[str, np.ndarray]) -> tuple[Any, ...]:
        """Counted examples, wrong ones for each choice, sums of the masks."""
        count, wrong = 0, np.zeros(len(chosen), np.int64)
        sums = {name: np.zeros(shape) for name, shape in shapes.items()}
        for batch in _batches(network, examples, excluded, batch_size):
            count += int(batch.counts.sum())
            for i, choice in enumerate(chosen):
                wrong_here, sums_here = evaluate(variables, batch, choice, means)
                wrong[i] += int(wrong_here)
                if len(chosen) == 1:
                    sums = {name: sums[name] + np.asarray(sums_here[name]) for name in names}
        return count, wrong, sums

    unknown = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    count, (wrong,), sums = measure([np.zeros(len(names), np.int32)], unknown)
    if not count:
        raise none_counts(network, split)
    means = {name: (total / count).astype(np.float32) for name, total in sums.items()}

    targets = [[name] for name in names] + ([names] if len(names) > 1 else [])
    numbers = range(1, len(REPLACEMENTS) + 1)
    chosen = [np.isin(names, target) * np.int32(n) for target in targets for n in numbers]
    _, wrong_with, _ = measure(chosen, means)
    errors = (wrong_with / count).reshape(len(targets), len(REPLACEMENTS)).tolist()
    modules = [
        ModuleErrors(
            module=target[0] if len(target) == 1 else ALL,
            mask_mean=float(means[target[0]].mean()) if len(target) == 1 else None,
            errors=dict(zip(REPLACEMENTS, row, strict=True)),
        )
        for target, row in zip(targets, errors, strict=True)
    ]
    return Ablation(split, count, int(wrong) / count, modules)


def _leaving_none_alone(count: int, batch_size: int) -> int:
    """The batch size, or one near it, with which no batch has one image, of two images or more.

    Raises:
        UsageError: it is 1.
    """
    if batch_size < 2:
        raise UsageError(
            f"batch_size={batch_size}: must be at least 2, since masks are exchanged within a batch"
        )
    sizes = (*range(batch_size, 1, -1), *range(batch_size + 1, count + 1))
    return next((size for size in sizes if count % size != 1), batch_size)


def _mask_shapes(network: Classifier) -> dict[str, tuple[int, ...]]:
    """Shape [H, W, C] of each module's masks, in the modules' order."""
    size = network.image_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    _, maps = jax.eval_shape(network.logits_and_maps, network.variables, images)
    return {name: maps[name].mask.shape[1:] for name in in_order(maps)}


def _evaluate(
    network: Classifier, variables: Any, batch: _Batch, choices: Array, means: dict[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """Counts wrong answers, and sums the original masks [H, W, C] of each module.

    Args:
        network: the network.
        variables: its variables.
        batch: images and labels.
        choices: replacement of each module, int32: 0 keeps its masks, 1 and more are the
            REPLACEMENTS. They are data, so that one compiled function serves all of them.
        means: mean mask of each module, by name; their order is that of the choices.
    """
    sums = {}

    def replace(
        run: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext
    ) -> Any:
        result = run(*arguments, **keywords)
        module = context.module
        if not isinstance(module, SoftMask | LocalMask) or context.method_name != "__call__":
            return result
        name = "/".join(module.path[:-1])
        counted = jnp.where(batch.counts[:, None, None, None], result, 0)
        sums[name] = jnp.sum(counted, axis=0, dtype=jnp.float32)
        mean = jnp.broadcast_to(means[name], result.shape).astype(result.dtype)
        replaced = (result, jnp.zeros_like(result), mean, result[batch.partners])
        return lax.select_n(choices[in_order(means).index(name)], *replaced)

    with nn.intercept_methods(replace):
        logits = network.logits(variables, jnp.asarray(batch.images))
    wrong = jnp.argmax(logits, axis=-1) != batch.labels
    return jnp.sum(wrong & batch.counts), sums


def _batches(
    network: Classifier, examples: Source, excluded: frozenset[str], batch_size: int
) -> Iterator[_Batch]:
    batches = read_batches(network, examples, excluded, batch_size)
    left = len(examples)
    for batch in batches:
        partners = np.arange(batch_size, dtype=np.int32)
        real = min(batch_size, left)  # the others are padding
        partners[:real] = np.roll(partners[:real], 1)
        left -= real
        yield _Batch(batch.images, batch.labels, partners, batch.mask)
