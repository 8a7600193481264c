"""The card of a trained network: what it is, how it came about, its error, and its limits."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from rattn_jax.config.load import with_new_names
from rattn_jax.configs import default
from rattn_jax.inference.network import Classifier
from rattn_jax.report.confusion import wilson_interval

# Keys of the config, and sections of it, that say how a network was trained.
_RECIPE = frozenset(
    {
        "accumulate_steps",
        "augmentation",
        "batch_size",
        "class_weights",
        "ema_decay",
        "freeze",
        "freeze_batch_norm",
        "init_from",
        "label_smoothing",
        "loss",
        "normalization",
        "num_train_steps",
        "optimizer",
        "regularization",
        "sync_batch_norm",
        "validation_examples",
        "validation_seed",
    }
)
_IF_UNUSUAL = ("dataset.image_size", "dataset.label_noise.", "dataset.sampling", "model.")
_OF_STEPS = ("optimizer.boundaries", "optimizer.step_decay")  # of the schedule "step" alone


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation of the stored network has found, and what storing has changed.

    Attributes:
        split: name of the split.
        num_examples: examples that were evaluated.
        num_errors: those that are answered wrongly.
        error_top1: their share.
        low: lower end of its 95 % interval (Wilson).
        high: its upper end.
        largest_difference: of a logit to that of the network before storing.
        mean_difference: the mean of all logits' absolute differences.
        num_changed: examples that have another answer than before storing.
    """

    split: str
    num_examples: int
    num_errors: int
    error_top1: float
    low: float
    high: float
    largest_difference: float
    mean_difference: float
    num_changed: int


def compare(split: str, labels: np.ndarray, logits: np.ndarray, exact: np.ndarray) -> Evaluation:
    """The evaluation of a split from its labels and logits [N, classes], stored and exact."""
    num_errors = int(np.sum(logits.argmax(axis=-1) != labels))
    low, high = wilson_interval(num_errors, len(labels))
    differences = np.abs(logits - exact)
    return Evaluation(
        split=split,
        num_examples=len(labels),
        num_errors=num_errors,
        error_top1=num_errors / len(labels),
        low=low,
        high=high,
        largest_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        num_changed=int(np.sum(logits.argmax(axis=-1) != exact.argmax(axis=-1))),
    )


def write_card(
    network: Classifier,
    record: Mapping[str, Any],
    dtype: str,
    evaluation: Evaluation | None,
    note: str | None,
) -> str:
    """The card, in Markdown with the header that model hubs read.

    Args:
        network: the network.
        record: its config.json.
        dtype: what its parameters are stored in.
        evaluation: of what is stored; None if it was not evaluated.
        note: a sentence on the data.
    """
    config, dataset = record["config"], record["dataset"]
    name, data = config["model"]["name"], config["dataset"]["name"]
    names = network.readable_names
    count = sum(leaf.size for leaf in jax.tree.leaves(network.variables["params"]))
    size, share = network.image_size, network.crop_fraction
    versions = " ".join(f"{library} {version}" for library, version in record["versions"].items())
    facts = {
        "network": f"`{name}`, {count:,} parameters, stored as {dtype}",
        "input": f"RGB images: the middle square, {100 * share:g} % of the shorter side, scaled to "
        f"{size}x{size} pixels",
        "classes": f"{len(names):,}: {', '.join(names[:10])}{', ...' if names[10:] else ''}",
        "data": f"{data}: {dataset['num_train']:,} training, {dataset['num_test']:,} test images",
        "error": error_text(evaluation),
        "updates": f"{network.step:,}",
        "seed": config.get("seed", "not known"),
        "commit": record["git_commit"] or "not known",
        "hardware and versions": f"{', '.join(sorted(set(record['devices'])))}; {versions}",
    }
    blocks = [
        _HEADER,
        f"# {name} on {_escape(data)}",
        "A Residual Attention Network (Wang et al., CVPR 2017, arXiv 1704.06904) of rattn_jax.",
        '    network = rattn_jax.load("THIS FOLDER")\n    network.predict(["photo.jpg"])',
        _table(facts),
        *([note] if note else []),
        "## Recipe",
        _IMPORTED if "imported" in config else _table(dict(_recipe(with_new_names(config)))),
        "## Intended use",
        "Research, teaching and comparisons: to look at its attention masks, to start other "
        f"trainings from, and to classify images like those of {_escape(data)}.",
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(dtype, evaluation)),
    ]
    return "\n\n".join(blocks) + "\n"


_HEADER = """---
library_name: rattn_jax
pipeline_tag: image-classification
tags: [image-classification, residual-attention-network, jax, flax]
---"""

_IMPORTED = "Imported from a PyTorch port's file; how it was trained is not known here."


def error_text(evaluation: Evaluation | None) -> str:
    """The error with its interval."""
    if evaluation is None:
        return "not measured (`export --evaluate` does)"
    low, high = 100 * evaluation.low, 100 * evaluation.high
    return (
        f"{100 * evaluation.error_top1:.2f} % of {evaluation.num_examples:,} {evaluation.split} "
        f"images, 95 % interval {low:.2f} to {high:.2f} %"
    )


def _table(facts: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {key} | {_escape(str(value))} |" for key, value in facts.items())
    return f"| | |\n|---|---|\n{rows}"


def _escape(text: str) -> str:
    """Text for a cell: names are the users', and Markdown has HTML in it."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def _recipe(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys of training that are set or not as usual, with their values."""
    usual = flatten_dict(default.get_config().to_dict(), sep=".")
    for key, value in flatten_dict(dict(config), sep=".").items():
        is_unusual = value is not None and value != usual.get(key)
        is_said = key.split(".")[0] in _RECIPE and (value or (is_unusual and usual.get(key)))
        if key == "model.name" or not (is_said or (key.startswith(_IF_UNUSUAL) and is_unusual)):
            continue
        if key not in _OF_STEPS or config["optimizer"]["schedule"] == "step":
            yield f"`{key}`", value


def _limits(dtype: str, evaluation: Evaluation | None) -> Iterator[str]:
    yield (
        "One training with one seed: the interval says what another sample of as many test images "
        "might give, not what another training would."
    )
    yield (
        "Images unlike those that it has learned from get an answer, too, often a sure one; the "
        "probabilities are not calibrated. Not for decisions about people or their safety."
    )
    if dtype == "float32":
        return
    if evaluation is None:
        yield f"Parameters are rounded to {dtype}; what that changes was not measured."
        return
    yield (
        f"Parameters are rounded to {dtype}: logits of the {evaluation.num_examples:,} "
        f"{evaluation.split} images differ by {evaluation.mean_difference:.2g} on average and "
        f"{evaluation.largest_difference:.2g} at most from those before rounding, and "
        f"{evaluation.num_changed} answers change."
    )
