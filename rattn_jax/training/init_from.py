"""Fine-tuning: starts from the weights of another run (`config.init_from`)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath

from rattn_jax.config.schema import RunConfig
from rattn_jax.errors import UsageError
from rattn_jax.runs.files import absolute
from rattn_jax.runs.pretrained import find_folder
from rattn_jax.runs.saved_run import SavedRun, read_inputs, read_saved_run
from rattn_jax.runs.workdir import holds_run, read_run
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
    size = config.dataset.image_size or other.dataset.image_size or read_inputs(folder)[1]
    return dataclasses.replace(
        config,
        model=dataclasses.replace(other.model, **keys),
        normalization=config.normalization or other.normalization,
        dataset=dataclasses.replace(config.dataset, image_size=size),
    )


def open_source(config: RunConfig, model: nn.Module) -> SavedRun | None:
    """Reads the run that `config.init_from` names; returns None if it is not set.

    Args:
        config: the run's config.
        model: its network, for any number of classes.

    Raises:
        UsageError: the folder holds no run, or its network or the normalization of its images
            differs.
        DataError: all its checkpoints are damaged.
    """
    if not config.init_from:
        return None
    source = read_saved_run(config.init_from)
    _check_same_network(source, config, model)
    return source


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
