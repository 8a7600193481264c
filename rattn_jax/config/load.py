"""From the keys of a config to typed values.

config = parse_config(default.get_config())      # RunConfig
config.optimizer.learning_rate                   # 0.1
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from rattn_jax.config.rules import check_config
from rattn_jax.config.schema import RunConfig
from rattn_jax.errors import UsageError

Section = TypeVar("Section")


def parse_config(config: ConfigDict) -> RunConfig:
    """The values of a config.

    Args:
        config: the keys of configs/default.py.

    Raises:
        UsageError: a key is unknown, or a value is missing or out of its range.
    """
    keys = config.to_dict()
    parsed = read_config(keys)
    unknown = flatten_dict(keys, sep=".").keys() - flatten_dict(parsed.to_dict(), sep=".").keys()
    if unknown:
        raise UsageError(f"the config has no key {min(unknown)!r}: configs/default.py lists all")
    check_config(parsed)
    return parsed


def read_config(record: Mapping[str, Any]) -> RunConfig:
    """The values of a config that was checked before, as in config.json.

    Args:
        record: nested, with lists for tuples or not; what it lacks has its default, and keys that
            are unknown are left out.
    """
    return _section(RunConfig, record)


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
