"""The folder of a run: creates it, and keeps different runs from sharing it.

config.json      the resolved config, the data's classes and hash, library versions, devices, commit
data.json        what the data was, see `data/contents.py`
normalization.npz    normalization and size of the images, see `saved_run.py`
metrics.jsonl    see `metrics_log.py`
report.html, mask_health.jsonl, mistakes.csv   see `report/`
checkpoints/     see `checkpoint_files.py`
tensorboard/     event files
loggers.json, wandb/     ids of the run in Weights & Biases and MLflow, see `loggers.py`
compilation_cache/   compiled functions, see `training/compilation.py`
earlier-1/       what a run without a checkpoint had written, when another one began here
"""

import itertools
import json
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
from etils import epath

from rattn_jax.config.load import as_before, flatten, read_config
from rattn_jax.config.schema import RunConfig
from rattn_jax.data.contents import Contents, changes
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import is_main_process
from rattn_jax.runs.checkpoint_files import all_steps, damaged_checkpoints
from rattn_jax.runs.files import absolute, check_can_hold_checkpoints, replace_text
from rattn_jax.runs.identity import (
    ENDING,
    PLACES,
    check_same_config,
    check_same_run,
    difference,
    no_run,
)
from rattn_jax.runs.rows import read_rows
from rattn_jax.runs.weights_folder import is_weights_folder

RECORD, CONTENTS = "config.json", "data.json"
# What a run writes beside its record and its checkpoints, and what another one must not add to.
_WRITTEN = (
    CONTENTS,
    "normalization.npz",
    "parameters.txt",
    "metrics.jsonl",
    "mask_health.jsonl",
    "report.html",
    "mistakes.csv",
    "tensorboard",
    "loggers.json",
    "wandb",
    "nonfinite",
    "profile",
)
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def open_run_folder(workdir: epath.PathLike, config: Mapping[str, Any]) -> epath.Path:
    """Creates the folder, or checks that the run in it has the same config.

    Args:
        workdir: the folder.
        config: the resolved config, nested.

    Returns:
        The folder's absolute path.

    Raises:
        UsageError: the folder cannot be written, or holds a run with another config.
    """
    folder = absolute(workdir)
    check_can_hold_checkpoints(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write_probe{jax.process_index()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"workdir {folder} cannot be written ({error.strerror}): "
            "choose a folder that you may write to"
        ) from error
    if is_weights_folder(folder):
        raise no_run("exported", folder)
    if holds_run(folder):
        record = _read_record(folder / RECORD)
        check_same_config(folder, record["config"], config, record["dataset"])
    return folder


def holds_run(folder: epath.Path) -> bool:
    """Whether the folder belongs to the run in it, which has a checkpoint to go on from.

    Nothing else binds a folder: neither lines of metrics, which a run writes before it saves, nor
    saves that failed, nor checkpoints that were found damaged and renamed.

    Raises:
        UsageError: the folder's record is damaged.
    """
    record = folder / RECORD
    if not record.exists():
        return False
    _read(record, "config")
    return bool(all_steps(folder / "checkpoints"))


def _has_trained(folder: epath.Path) -> bool:
    """Whether the run in the folder has, or had, more than a start writes once more.

    That is a checkpoint that was found damaged, or metrics that reach to the first one or beyond.
    """
    if damaged_checkpoints(folder / "checkpoints"):
        return True
    config = read_config(_read(folder / RECORD, "config"))
    first = min(config.checkpoint_every_steps, config.num_train_steps)
    return any(
        (row["step"], row["split"] != "train") > (first, False)
        for row in read_rows(folder / "metrics.jsonl")
    )


def config_of_run(
    workdir: epath.PathLike, config: RunConfig, say: Callable[[str], None]
) -> RunConfig:
    """The config with which a run of an earlier version goes on: newer keys are as it was then.

    Raises:
        UsageError: the folder's record is damaged.
    """
    folder = absolute(workdir)
    try:
        if not holds_run(folder):
            return config
    except OSError:  # `open_run_folder` says what is wrong with the folder
        return config
    config, changed = as_before(_read(folder / RECORD, "config"), config)
    for key, value in changed.items():
        say(f"the run is older than the config's key {key}: it goes on with {key}={value}")
    return config


def check_run(folder: epath.Path, run: Any, contents: Contents) -> None:
    """Checks that the folder is free, or holds this run on the same data.

    Args:
        folder: the run's folder.
        run: from `describe_run`.
        contents: what the dataset holds.

    Raises:
        UsageError: it holds another run, or one on other data; the message says what has changed.
    """
    if not holds_run(folder):
        return
    before = _read_record(folder / RECORD)
    check_same_config(folder, before["config"], run["config"], before["dataset"])
    then, now = (part["dataset"].get("contents") for part in (before, run))
    if then is not None and then != now:
        raise UsageError(
            f"{folder} holds a run on other data ({_changes(folder, contents)}): use another "
            "workdir, or put the data back as it was"
        )
    check_same_run(folder, before, run)


def _changes(folder: epath.Path, contents: Contents) -> str:
    try:
        return changes(json.loads((folder / CONTENTS).read_text()), contents)
    except (OSError, ValueError):
        return f"what has changed is not known, for {CONTENTS} is gone"


def claim_run_folder(
    folder: epath.Path,
    run: Any,
    contents: Contents,
    devices: Sequence[jax.Device],
    say: Callable[[str], None],
) -> None:
    """Writes config.json, of a run that goes on from a checkpoint only its places and its end.

    Without a checkpoint to go on from, nothing of an earlier run may mix with this one: what it
    wrote is moved to a folder of its own. A run of the same config writes the same once more.

    Args:
        folder: the run's folder, after `check_run`.
        run: from `describe_run`.
        contents: what the dataset holds.
        devices: devices of the run.
        say: called with a line about what was moved.
    """
    if not is_main_process():
        return
    record, goes_on = folder / RECORD, bool(all_steps(folder / "checkpoints"))
    if record.exists() and not goes_on:
        before = _read_record(record)
        if _has_trained(folder) or difference(before, run):
            _set_aside(folder, say)
    if record.exists() and goes_on:
        before = record.read_text()
        description = json.loads(before)
        is_evaluation = not run["config"]["num_train_steps"]  # which chooses and ends nothing
        _set(description["config"], PLACES if is_evaluation else [*PLACES, *ENDING], run["config"])
        if (now := json.dumps(description, indent=2) + "\n") != before:
            replace_text(record, now)
        return
    replace_text(folder / CONTENTS, json.dumps(contents))
    description = run | {
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in _LIBRARIES},
        "devices": [device.device_kind for device in devices],
        "git_commit": _git_commit(),
    }
    replace_text(record, json.dumps(description, indent=2) + "\n")


def _set(config: dict[str, Any], keys: Iterable[str], source: Mapping[str, Any]) -> None:
    """Sets some keys of a nested config to what another one has there."""
    values = flatten(source)
    for key in keys:
        if key not in values:
            continue
        *sections, name = key.split(".")
        section = config
        for each in sections:
            section = section.setdefault(each, {})
        section[name] = values[key]


def _set_aside(folder: epath.Path, say: Callable[[str], None]) -> None:
    numbered = (folder / f"earlier-{number}" for number in itertools.count(1))
    place = next(path for path in numbered if not path.exists())
    place.mkdir()
    for path in damaged_checkpoints(folder / "checkpoints"):
        (place / "checkpoints").mkdir(exist_ok=True)
        path.rename(place / "checkpoints" / path.name)
    for name in (*_WRITTEN, RECORD):  # so that a killed process leaves what is left to the next
        if (folder / name).exists():
            (folder / name).rename(place / name)
    say(f"the run in {folder} has no checkpoint: what it wrote is in {place}, and a new one begins")


def read_run(folder: epath.Path) -> tuple[RunConfig, dict[str, Any]]:
    """Reads config.json: the config, and the description of the dataset.

    Raises:
        UsageError: the folder holds no run.
    """
    record = folder / RECORD
    if not record.exists():
        raise UsageError(
            f"workdir {folder} holds no run: it has no {RECORD}; give the --workdir of a training"
        )
    return read_config(_read(record, "config")), _read(record, "dataset")


def _read_record(record: epath.Path) -> Any:
    return {part: _read(record, part) for part in ("config", "dataset")}


def _read(record: epath.Path, part: str) -> Any:
    try:
        return json.loads(record.read_text())[part]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{record} is not the record of a run: choose another workdir, or remove that file"
        ) from error


def _git_commit() -> str | None:
    """Git commit of the code, with "-dirty" if it was changed; None if no repository holds it."""
    here = epath.Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # a user's own may have an environment in it
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None
