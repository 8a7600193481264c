"""Loads configs from files, the command line or config.json, as typed values.

keys = load_config("digits", ["--config.seed=1"])   # a name, or the path of a file: ConfigDict
config = parse_config(keys)                         # RunConfig
config.optimizer.learning_rate                      # 0.1
"""

import ast
import dataclasses
import difflib
import importlib
import os
import re
import runpy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import flags
from ml_collections import ConfigDict, config_flags

from rattn_jax.config.rules import check_config
from rattn_jax.config.schema import BY_NAME, BY_POSITION, RunConfig, split_place
from rattn_jax.errors import UsageError

Section = TypeVar("Section")

# Old names of keys, which a config.json of an earlier version may have.
_RENAMED = {
    "augmentation.scale_crop": "augmentation.resized_crop_area",
    "dataset.hold_out_by_name": "dataset.hold_out_by",
    "dataset.validation_blacklist": "dataset.test_exclude_file",
    "freeze_statistics": "freeze_batch_norm",
    "optimizer.decay": "optimizer.step_decay",
}
# Old values of keys, under the names that these had, and those of today.
_OLD_NORMALIZATION, _NEW_NORMALIZATION = "unit", "zero_one"
_NEW_VALUES: dict[str, dict[Any, Any]] = {
    "dataset.hold_out_by_name": {True: BY_NAME, False: BY_POSITION},
    "normalization": {_OLD_NORMALIZATION: _NEW_NORMALIZATION},
}
# Values that keys stood for before they existed, where some config of today has another.
_BEFORE: dict[str, Any] = {
    "dataset.all_images": False,
    "dataset.classes": (),
    "dataset.crop_files": False,
    "dataset.exact_pixels": False,
    "dataset.hold_out_by": BY_POSITION,
    "dataset.replace_bad_examples": False,
    "optimizer.nesterov": True,
}
# Keys in epochs, and those in updates that they stand in for.
EPOCHS = {
    "num_epochs": "num_train_steps",
    "eval_every_epochs": "eval_every_steps",
    "optimizer.warmup_epochs": "optimizer.warmup_steps",
}

# In the repository this folder is a link to configs/.
SHIPPED = Path(__file__).parents[1] / "configs"


def shipped_configs() -> dict[str, str]:
    """The configs of the package by name, each with the first line of its docstring."""
    files = sorted(path for path in SHIPPED.glob("*.py") if path.stem != "__init__")
    docstrings = {path.stem: ast.get_docstring(ast.parse(path.read_text())) for path in files}
    return {name: (text or "").partition("\n")[0] for name, text in docstrings.items()}


def load_config(name: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads a config, and overrides some of its keys.

    Args:
        name: of a shipped config, such as "digits", or the path of a Python file that defines
            `get_config()`. The file is run.
        overrides: flags `--config.KEY=VALUE`.

    Raises:
        UsageError: there is no such config; or a flag has an unknown key or a bad value.
    """
    path = Path(name)
    if name in shipped_configs():
        found = vars(importlib.import_module(f"rattn_jax.configs.{name}"))
    elif path.is_file():
        found = runpy.run_path(str(path), run_name=path.stem)
    else:
        raise UsageError(
            f"--config={name}: there is no such file and no config of this name: "
            f"{did_you_mean(path.stem, shipped_configs())}`rattn configs` lists them"
        )
    if "get_config" not in found:
        raise UsageError(f"--config={name}: the file must define get_config()")
    return override(found["get_config"](), overrides)


def to_config_dict(config: RunConfig) -> ConfigDict:
    """Converts typed values back to keys, for `override`."""
    from rattn_jax.configs import default

    keys = default.get_config()
    keys.update(config.to_dict())
    return keys


def key_of(flag: str) -> str:
    """The key that a flag sets: "optimizer.name" of `--config.optimizer.name=sgd`."""
    return re.split(r"[=\[]", flag.removeprefix("--config."))[0]


def override(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """Sets keys of the config from flags `--config.KEY=VALUE`, and returns it.

    A flag in updates, such as num_train_steps, takes the place of the config's epochs.

    Raises:
        UsageError: a key is unknown, a value is not of its key's type, or the same is given in
            updates and in epochs.
    """
    known = [*flatten(config.to_dict()), *_sections(config)]
    for flag in overrides:
        key = key_of(flag)
        if key not in known:
            raise UsageError(_unknown_key(key, known))
    # Of a tuple that is set twice the library would take both values.
    by_key = {flag.partition("=")[0]: flag for flag in overrides}
    for key, steps in EPOCHS.items():
        if f"--config.{steps}" not in by_key:
            continue
        if f"--config.{key}" in by_key:
            raise UsageError(f"--config.{key} and --config.{steps} say the same: give one of them")
        if key in known:
            config.update_from_flattened_dict({key: None})
    overrides = list(by_key.values())
    values, argv = flags.FlagValues(), ["rattn", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError) as error:
        raise UsageError(" ".join(str(error).removeprefix("flag ").split())) from error
    return config.lock()


def parse_config(config: ConfigDict) -> RunConfig:
    """Converts the keys of a config to typed, checked values, with absolute paths.

    Args:
        config: the keys of configs/default.py.

    Raises:
        UsageError: a key is unknown, or a value is missing or out of range.
    """
    keys = config.to_dict()
    parsed = _section(RunConfig, keys)
    known = flatten(parsed.to_dict())
    for key in sorted(flatten(keys).keys() - known.keys()):
        raise UsageError(_unknown_key(key, known))
    if parsed.normalization == _OLD_NORMALIZATION:
        raise UsageError(
            f"config.normalization={_OLD_NORMALIZATION!r} is now called {_NEW_NORMALIZATION!r}"
        )
    check_config(parsed)
    return _at_absolute_places(parsed)


def absolute_place(key: str, value: str) -> str:
    """The value of a key that says where something lies, as a path from the root.

    `~` is expanded. URLs stay as they are, and names of datasets and of pretrained networks, too.
    """
    prefix = split_place(value)[0] if key == "dataset.name" else ""
    path = os.path.expanduser(value.removeprefix(prefix))
    is_name = (key == "dataset.name" and not prefix) or (key == "init_from" and "/" not in value)
    return value if is_name or "://" in path else prefix + os.path.join(os.getcwd(), path)


def _at_absolute_places(config: RunConfig) -> RunConfig:
    """The config with what it names, so that it is found from every current folder."""
    data, noise, source = config.dataset, config.dataset.label_noise, config.init_from
    if noise.matrix:
        matrix = absolute_place("dataset.label_noise.matrix", noise.matrix)
        noise = dataclasses.replace(noise, matrix=matrix)
    excluded = data.test_exclude_file
    data = dataclasses.replace(
        data,
        name=absolute_place("dataset.name", data.name),
        test_exclude_file=excluded and absolute_place("dataset.test_exclude_file", excluded),
        label_noise=noise,
    )
    source = source and absolute_place("init_from", source)
    return dataclasses.replace(config, dataset=data, init_from=source)


def read_config(record: Mapping[str, Any]) -> RunConfig:
    """Converts a config that was checked before, as in config.json.

    Args:
        record: nested keys and values, possibly with lists for tuples. Missing keys get their
            defaults, or what they stood for before they existed; unknown keys are ignored.
    """
    return _section(RunConfig, with_new_names(record))


def as_before(record: Mapping[str, Any], config: RunConfig) -> tuple[RunConfig, dict[str, Any]]:
    """The config with which a run goes on, and the keys of it that are newer than the run.

    Args:
        record: the run's config, as in config.json.
        config: the config to go on with.
    """
    known, now = flatten(record), flatten(config.to_dict())
    then = _BEFORE | flatten(with_new_names(record))
    changed = {k: then[k] for k in _BEFORE if k not in known and now[k] != then[k]}
    for key, value in changed.items():
        section, _, name = key.partition(".")
        part = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section: part})
    return config, changed


def with_new_names(record: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Brings a config that an earlier version has written to today's keys.

    Keys and values get their new names, and keys that did not exist the values they stood for.

    Args:
        record: nested keys and values.
        section: prefix of the keys, such as "optimizer.".
    """
    renamed: dict[str, Any] = {}
    for key, value in record.items():
        path = section + key
        if isinstance(value, Mapping):
            value = with_new_names(value, f"{path}.")
        elif path in _NEW_VALUES:
            value = _NEW_VALUES[path].get(value, value)
        renamed[_RENAMED.get(path, path).rpartition(".")[2]] = value
    for path, value in _BEFORE.items():
        if path.startswith(section) and path.count(".") == section.count("."):
            renamed.setdefault(path.removeprefix(section), value)
    return renamed


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their dotted keys, such as "optimizer.learning_rate"."""
    # Not flax.traverse_util.flatten_dict, because it imports JAX: a wrong flag should not wait.
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that suggests similar names; empty if there are none."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    if not close:
        ends = {key.rpartition(".")[2]: key for key in known}
        alike = difflib.get_close_matches(name.rpartition(".")[2], ends, n=1, cutoff=0.7)
        close = [ends[end] for end in alike]
    return f"did you mean {' or '.join(close)}? " if close else ""


def _unknown_key(key: str, known: Iterable[str]) -> str:
    if key in _RENAMED:
        return f"the key {key!r} of the config is now called {_RENAMED[key]!r}"
    return (
        f"the config has no key {key!r}: {did_you_mean(key, known)}"
        "`rattn configs default` shows all keys"
    )


def _sections(config: ConfigDict, prefix: str = "") -> list[str]:
    inner = {prefix + key: value for key, value in config.items() if hasattr(value, "items")}
    return [*inner, *(name for key, value in inner.items() for name in _sections(value, f"{key}."))]


def _section(cls: type[Section], record: Mapping[str, Any]) -> Section:
    values = {}
    # That a type is a dataclass cannot be said in the public names of `typing`.
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name not in record:
            continue
        value = record[field.name]
        if dataclasses.is_dataclass(field.type):
            value = _section(field.type, value)  # type: ignore[arg-type]
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)
