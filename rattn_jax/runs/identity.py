"""What identifies a run: its config and its data; and what may change when it goes on.

run = describe_run(config.to_dict(), dataset.describe())
check_same_run(folder, before, run)
"""

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from etils import epath

from rattn_jax.config.load import absolute_place, flatten, with_new_names
from rattn_jax.config.schema import RunConfig, split_place
from rattn_jax.errors import UsageError

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
        "loggers",
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

# Keys that say where something of the data, or what a run began from, lies, and what the record of
# the data has of it. With that in the record, the place is free.
SOURCE = "init_from"
PLACES = {
    "dataset.name": "contents",
    "dataset.test_exclude_file": "test_exclude_file",
    "dataset.label_noise.matrix": "label_noise_matrix",
    "init_from": SOURCE,
}

# Free keys that say when a run ends and which checkpoint is its best: of them, as of the places,
# config.json has the newest values.
ENDING = frozenset(
    {"num_train_steps"} | {f"keep_best.{key}" for key in ("metric", "mode", "patience", "split")}
)


def describe_run(config: Mapping[str, Any], dataset: Mapping[str, Any]) -> Any:
    """What identifies a run, for JSON: its resolved config, and `data.contents.describe_data`."""
    return {"config": _as_json(config), "dataset": _as_json(dataset)}


def check_same_run(path: epath.Path, before: Any, now: Any) -> None:
    """Raises UsageError unless both results of `describe_run` are of the same run."""
    if text := difference(before, now):
        raise UsageError(f"{path} holds a run {text}")


def check_same_config(folder: epath.Path, old: Any, new: Any, data: Any) -> None:
    """Raises UsageError if two configs belong to different runs.

    Args:
        folder: the run's folder, for the message.
        old: its config, as in config.json.
        new: the config to resume with, nested.
        data: what config.json has of its data, which is compared later.
    """
    if "imported" in old:
        raise no_run("imported", folder)
    if text := _difference_of_configs(old, new, data):
        raise UsageError(f"{folder} holds a run {text}")


def difference(before: Any, now: Any) -> str:
    """What makes two results of `describe_run` different runs, and the remedy; "" if nothing."""
    # A place is free only if what lies there is compared.
    compared = before["dataset"].keys() & now["dataset"].keys()
    text = _difference_of_configs(before["config"], now["config"], compared)
    return text or _difference_of_data(before["dataset"], now["dataset"])


def no_run(kind: str, folder: epath.Path) -> UsageError:
    """What to say of a folder of weights that a run was to go on in."""
    return UsageError(
        f"{folder} holds {kind} weights, and no run to go on with: use another workdir, and "
        f"--config.init_from={folder}"
    )


def places(config: Any) -> dict[str, str]:
    """Where the data of a run and what it starts from lie: absolute paths, by their keys."""
    found = {key: flatten(config).get(key) for key in PLACES}
    return {key: absolute_place(key, value) for key, value in found.items() if value}


def _is_elsewhere(key: str, before: Any, now: Any, data: Any) -> bool:
    """Whether a key says only where the same data lies, of which the record has the contents.

    Of a TFDS set it may also say which version it is, if the record has that.
    """
    if key == "dataset.name":
        if "version" in data and str(before).partition(":")[0] == str(now).partition(":")[0]:
            return True
        before, now = split_place(str(before))[0], split_place(str(now))[0]
    return PLACES.get(key) in data and bool(before and now)


def _difference_of_configs(old: Any, new: Any, data: Any) -> str:
    old, new = _as_json(with_new_names(old)), _as_json(new)
    before, now = flatten(old) | places(old), flatten(new) | places(new)
    defaults = flatten(_as_json(RunConfig().to_dict()))
    for key in sorted(before.keys() | now.keys()):
        if key not in before and (not now[key] or now[key] == defaults.get(key)):
            continue  # a key that did not exist then, and is off or as always
        then, value = before.get(key), now.get(key)
        if key in FREE_KEYS or then == value or _is_elsewhere(key, then, value, data):
            continue
        return (
            f"with {key}={then!r}, and this config has {key}={value!r}: use another workdir, or "
            "that value"
        )
    return ""


def _difference_of_data(before: Any, now: Any) -> str:
    for key, value in now.items():
        if key in before and before[key] != value:
            if key == SOURCE:
                return (
                    "that began from other weights than those of init_from: use another workdir, "
                    "or what it began from"
                )
            if key == "version":
                return (
                    f"on version {before[key]}, and {value} is the one that was found: use another "
                    f"workdir, or --config.dataset.name={before[key]}"
                )
            return (
                f"on a dataset with {key}={_short(before[key])}, which now has "
                f"{_short(value)}: use another workdir, or the dataset as it was"
            )
    return ""


def _as_json(config: Mapping[str, Any]) -> Any:
    """The config as it is read back from JSON: tuples become lists."""
    return json.loads(json.dumps(config))


def _short(value: Any) -> str:
    return textwrap.shorten(repr(value), 60)
