"""The folder of a run: creates and locks it, and keeps different runs from sharing it.

config.json      the resolved config, library versions, devices, git commit
normalization.npz    normalization and size of the images, see `saved_run.py`
metrics.jsonl    see `metrics_log.py`
report.html, mask_health.jsonl   see `report/`
checkpoints/     see `checkpoint_files.py`
tensorboard/     event files
compilation_cache/   compiled functions, see `training/compilation.py`
"""

import contextlib
import fcntl
import json
import platform
import subprocess
import textwrap
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
from etils import epath

from rattn_jax.config.load import as_before, flatten, read_config, with_new_names
from rattn_jax.config.schema import RunConfig
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import is_main_process
from rattn_jax.runs.files import (
    absolute,
    check_can_hold_checkpoints,
    is_remote,
    replace_text,
)
from rattn_jax.runs.weights_folder import is_weights_folder

# Keys that may change when a run is resumed, because they do not change its results.
FREE_KEYS = frozenset(
    {
        "checkpoint_every_steps",
        "compilation_cache_dir",
        "data_dir",
        "dataset.max_bad_examples",
        "dataset.num_threads",
        "eval_every_steps",
        "keep_best.metric",
        "keep_best.mode",
        "keep_best.patience",
        "keep_best.split",
        "keep_checkpoints",
        "log_every_steps",
        "model.remat",
        "model.scan_modules",
        "num_train_steps",
        "on_nonfinite",
        "on_save_error",
        "parallel",
        "preemption_grace_seconds",
        "process_timeout_seconds",
        "profile_steps",
        "report",
        "steps_per_call",
    }
)

RECORD = "config.json"
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
        raise _no_run("exported", folder)
    record = folder / RECORD
    if record.exists():
        check_same_config(folder, _read(record, "config"), config)
    return folder


def config_of_run(
    workdir: epath.PathLike, config: RunConfig, say: Callable[[str], None]
) -> RunConfig:
    """The config with which a run of an earlier version goes on: newer keys are as it was then.

    Raises:
        UsageError: the folder's record is damaged.
    """
    record = absolute(workdir) / RECORD
    try:
        if not record.exists():
            return config
    except OSError:  # `open_run_folder` says what is wrong with the folder
        return config
    config, changed = as_before(_read(record, "config"), config)
    for key, value in changed.items():
        say(f"the run is older than the config's key {key}: it goes on with {key}={value}")
    return config


def record_run(
    folder: epath.Path,
    config: Mapping[str, Any],
    devices: Sequence[jax.Device],
    dataset: Mapping[str, Any],
) -> Any:
    """Writes config.json; if it exists, checks that the dataset is the same.

    Args:
        folder: the run's folder.
        config: the resolved config, nested.
        devices: devices of the run.
        dataset: its class names and sizes.

    Returns:
        Config and dataset for JSON, which identify the run.

    Raises:
        UsageError: the dataset has changed.
    """
    record = folder / RECORD
    run = {"config": _as_json(config), "dataset": _as_json(dataset)}
    if record.exists():
        _compare_dataset(folder, _read(record, "dataset"), run["dataset"])
        return run
    if not is_main_process():
        return run
    description = run | {
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in _LIBRARIES},
        "devices": [device.device_kind for device in devices],
        "git_commit": _git_commit(),
    }
    replace_text(record, json.dumps(description, indent=2) + "\n")
    return run


def check_same_run(path: epath.Path, before: Any, now: Any) -> None:
    """Raises UsageError unless both results of `record_run` belong to the same run."""
    check_same_config(path, before["config"], now["config"])
    _compare_dataset(path, before["dataset"], now["dataset"])


@contextlib.contextmanager
def lock_run_folder(folder: epath.Path) -> Generator[None]:
    """Locks the folder against other training processes while the block runs.

    The lock ends with the process, even if it is killed. Object stores have no locks.

    Raises:
        UsageError: another process is training there.
    """
    if not is_main_process() or is_remote(folder):
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"workdir {folder} is in use by another process: wait for it, or choose another "
                "workdir"
            ) from error
        yield


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


def _as_json(config: Mapping[str, Any]) -> Any:
    """The config as it is read back from JSON: tuples become lists."""
    return json.loads(json.dumps(config))


def _short(value: Any) -> str:
    return textwrap.shorten(repr(value), 60)


def _read(record: epath.Path, part: str) -> Any:
    try:
        return json.loads(record.read_text())[part]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{record} is not the record of a run: choose another workdir, or remove that file"
        ) from error


def check_same_config(folder: epath.Path, old: Any, new: Any) -> None:
    """Raises UsageError if two configs belong to different runs.

    Args:
        folder: the run's folder, for the message.
        old: its config, as in config.json.
        new: the config to resume with, nested.
    """
    if "imported" in old:
        raise _no_run("imported", folder)
    before, now = flatten(with_new_names(old)), flatten(_as_json(new))
    for key in sorted(before.keys() | now.keys()):
        if key not in before and not now[key]:
            continue  # a key that did not exist then, and is off
        if key not in FREE_KEYS and before.get(key) != now.get(key):
            raise UsageError(
                f"{folder} holds a run with {key}={before.get(key)!r}, and this config "
                f"has {key}={now.get(key)!r}: use another workdir, or that value"
            )


def _no_run(kind: str, folder: epath.Path) -> UsageError:
    return UsageError(
        f"{folder} holds {kind} weights, and no run to go on with: use another workdir, and "
        f"--config.init_from={folder}"
    )


def _compare_dataset(folder: epath.Path, before: Any, now: Any) -> None:
    for key, value in now.items():
        if before.get(key) != value:
            raise UsageError(
                f"{folder} holds a run on a dataset with {key}={_short(before.get(key))}, which "
                f"now has {_short(value)}: use another workdir, or the dataset as it was"
            )


def _git_commit() -> str | None:
    """Git commit of the code, with "-dirty" if it was changed; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = epath.Path(__file__).parent
    try:
        result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
