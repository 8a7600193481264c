"""Fine-tuning: starts from the weights of another run (`config.init_from`)."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.batches import Normalization
from rattn_jax.data.catalog import KNOWN
from rattn_jax.data.loaders import ImageSizes
from rattn_jax.errors import DataError, UsageError
from rattn_jax.runs.checkpoint_files import all_steps, checksums
from rattn_jax.runs.files import absolute
from rattn_jax.runs.identity import SOURCE
from rattn_jax.runs.pretrained import find_folder
from rattn_jax.runs.saved_run import SavedRun, read_inputs, read_saved_run
from rattn_jax.runs.workdir import RECORD, holds_run, read_run
from rattn_jax.training.state import TrainState

_CLASSIFIER = "classifier"
# Attributes of a network that leave its variables and what they mean the same, but for the
# classifier's.
_FREE = frozenset(
    {"name", "parent", "num_classes", "norm_axis_name", "dtype", "remat", "scan_modules"}
)


def like_source(config: RunConfig, workdir: epath.PathLike | None = None) -> RunConfig:
    """Fills in network, normalization and image size, if the config names no network.

    They are those of `config.init_from`, or of the run in `workdir`, which has taken them before.
    Keys of these that are set stay.

    Raises:
        UsageError: the folder of `config.init_from` holds no run.
    """
    if config.model.name:
        return config
    folder = absolute(workdir) if workdir and _goes_on(workdir) else find_folder(config.init_from)
    other, _ = read_run(folder)
    keys = {key: value for key, value in vars(config.model).items() if value not in (None, "")}
    known = KNOWN.get(other.dataset.name)  # its images may be larger in evaluation
    size = config.dataset.image_size or other.dataset.image_size or (known and known.image_size)
    size = size or read_inputs(folder)[1]
    return dataclasses.replace(
        config,
        model=dataclasses.replace(other.model, **keys),
        normalization=config.normalization or other.normalization,
        dataset=dataclasses.replace(config.dataset, image_size=size),
    )


def open_source(
    config: RunConfig, model: nn.Module, folder: epath.Path | None = None
) -> SavedRun | None:
    """Reads the run that `config.init_from` names; returns None if it is not set or not needed.

    Args:
        config: the run's config.
        model: its network, for any number of classes.
        folder: the run's folder; with a checkpoint in it the run goes on from that.

    Raises:
        UsageError: the folder holds no run, or its network or the normalization of its images
            differs.
        DataError: all its checkpoints are damaged.
    """
    if not config.init_from or (folder and all_steps(folder / "checkpoints")):
        return None
    source = read_saved_run(config.init_from)
    _check_same_network(source, config, model)
    return source


def normalization_of(source: SavedRun | None, sizes: ImageSizes) -> Normalization | None:
    """The normalization of the run to start from; None without one.

    For images of another size, the mean color takes the place of a mean image.
    """
    if source is None:
        return None
    mean, scale = source.normalization
    if mean.ndim == 3 and {mean.shape[:2]} != {(size, size) for size in sizes}:
        mean = np.mean(mean, axis=(0, 1))
    return Normalization(mean, scale)


def describe_source(
    config: RunConfig, source: SavedRun | None, folder: epath.Path
) -> dict[str, object]:
    """What a run's config.json says of the weights that it began from: a hash, by the key SOURCE.

    A run that goes on needs them no more: they are read only if config.init_from names another
    place than before, where the same ones must be. A run started before hashes were kept has
    none: its place stays.

    Args:
        config: the run's config.
        source: from `open_source`; None of a run that goes on.
        folder: the run's folder.

    Raises:
        UsageError: what config.init_from now names cannot be read.
    """
    if source is not None:
        return {SOURCE: _hash(source)}
    if not config.init_from or not (folder / RECORD).exists():
        return {}
    before, data = read_run(folder)
    if SOURCE not in data or before.init_from == config.init_from:
        return {SOURCE: data[SOURCE]} if SOURCE in data else {}
    try:
        return {SOURCE: _hash(read_saved_run(config.init_from))}
    except (UsageError, DataError) as error:
        raise UsageError(
            f"config.init_from={config.init_from!r} cannot be compared with what the run in "
            f"{folder} began from ({error}): give {before.init_from!r}, which need not be there"
        ) from error


def _hash(source: SavedRun) -> str:
    text = json.dumps(checksums(source.variables), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def start_from(
    state: TrainState, source: SavedRun, class_names: Sequence[str], say: Callable[[str], None]
) -> TrainState:
    """A new run's state with the parameters and statistics of another run.

    If that run keeps an EMA, its averages are taken. The classifier is taken only if the class
    names are the same.

    Args:
        state: state before the first update, its modules apart.
        source: network of the other run, from `open_source`.
        class_names: names of the new run's classes.
        say: called with a line about what was taken.

    Raises:
        UsageError: the shapes of the arrays differ.
    """
    kept = () if tuple(class_names) == source.class_names else (_CLASSIFIER,)
    params = _take(state.params, source.variables["params"], kept, source)
    batch_stats = _take(state.batch_stats, source.variables["batch_stats"], (), source)
    ema = None if state.ema is None else {"params": params, "batch_stats": batch_stats}
    what = "all but the classifier" if kept else "classifier included"
    say(f"starting from {source.folder}, step {source.step}: {what}")
    return dataclasses.replace(
        state,
        params=params,
        batch_stats=batch_stats,
        ema=jax.tree.map(jnp.copy, ema),  # donated apart from the parameters
    )


def _goes_on(workdir: epath.PathLike) -> bool:
    try:
        return holds_run(absolute(workdir))
    except OSError:  # `open_run_folder` says what is wrong with the folder
        return False


def _check_same_network(source: SavedRun, config: RunConfig, own: nn.Module) -> None:
    other = source.model
    pairs = {"normalization": (source.config.normalization, config.normalization)}
    if type(own) is type(other):
        pairs |= {
            f"model.{field.name}": (getattr(other, field.name), getattr(own, field.name))
            for field in dataclasses.fields(own)
            if field.name not in _FREE
        }
    else:
        pairs["model.name"] = (source.config.model.name, config.model.name)
    for key, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise UsageError(
                f"config.init_from={config.init_from!r} is a run with {key}={theirs!r}, and this "
                f"one has {ours!r}: must be equal; set --config.{key}={theirs}"
            )


def _take(
    own: Mapping[str, Any], other: Mapping[str, Any], kept: Sequence[str], source: SavedRun
) -> dict[str, Any]:
    """`own` with the arrays of `other`, but for what is `kept`."""
    taken = {name: value for name, value in other.items() if name not in kept}
    result = {name: value if name in kept else taken.get(name) for name, value in own.items()}
    if jax.tree.map(jnp.shape, result) != jax.tree.map(jnp.shape, own):
        raise UsageError(
            f"{source.folder} has parameters of other shapes than this network: use a run of the "
            "same network, made by the same version"
        )
    return jax.tree.map(jnp.asarray, result)
