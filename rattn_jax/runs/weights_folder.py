"""The weights of a network as a folder to hand on: safetensors, and nothing that could be run.

config.json          the run's, and "step"
normalization.npz    what images are scaled and normalised to, see `saved_run.py`
model.safetensors    parameters and statistics by their paths, such as "params/stem/kernel"
README.md            the card: what it is, its error, its limits
SHA256SUMS           checksums of the first three: sha256sum --check SHA256SUMS
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rattn_jax.errors import UsageError
from rattn_jax.runs.files import replace_bytes

WEIGHTS, CARD, SUMS = "model.safetensors", "README.md", "SHA256SUMS"
CHECKED = ("config.json", "normalization.npz", WEIGHTS)
FILES = (*CHECKED, CARD, SUMS)


def is_weights_folder(folder: epath.Path) -> bool:
    """Whether the folder holds such weights, and not a run."""
    return (folder / WEIGHTS).exists() or (folder / SUMS).exists()


def encode_weights(variables: Mapping[str, Any], dtype: str) -> bytes:
    """The variables as a safetensors file.

    Args:
        variables: of the network.
        dtype: "float32", or "float16", which parameters are rounded to; statistics never are.

    Raises:
        UsageError: a parameter is too large for the type.
    """
    arrays = {key: np.asarray(x) for key, x in flatten_dict(dict(variables), sep="/").items()}
    for key in [key for key in arrays if key.startswith("params/")]:
        with np.errstate(over="ignore"):
            rounded = arrays[key].astype(dtype)
        if not np.isfinite(rounded).all():
            raise UsageError(
                f"--dtype={dtype} cannot hold {key}, whose largest value is "
                f"{np.abs(arrays[key]).max():g}: choose --dtype=float32"
            )
        arrays[key] = rounded
    return save(arrays, {"format": "rattn_jax"})


def decode_weights(data: bytes) -> dict[str, Any]:
    """The variables of such a file, nested, float32.

    Raises:
        SafetensorError: it is none.
    """
    variables: dict[str, Any] = unflatten_dict(load(data), sep="/")
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), variables)


def write_weights_folder(folder: epath.Path, files: Mapping[str, bytes]) -> None:
    """Writes the files, which lack SHA256SUMS, and their checksums last.

    Raises:
        UsageError: the folder cannot be written.
    """
    sums = "".join(f"{_sha256(files[name])}  {name}\n" for name in CHECKED)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in {**files, SUMS: sums.encode()}.items():
            replace_bytes(folder / name, data)
    except OSError as error:
        raise UsageError(
            f"--out={folder} cannot be written ({error.strerror}): choose another folder"
        ) from error


def read_weights(folder: epath.Path) -> tuple[int, dict[str, Any]]:
    """Updates and variables of the network, after all checksums of the folder were compared.

    Raises:
        UsageError: a file is missing or damaged.
    """
    data = {name: _read(folder, name) for name in (SUMS, *CHECKED)}
    lines = (line.split() for line in data[SUMS].decode(errors="replace").splitlines())
    sums = {words[1]: words[0] for words in lines if len(words) == 2}
    for name in CHECKED:
        if sums.get(name) != _sha256(data[name]):
            raise _damaged(folder / name, f"its SHA-256 is not the one in {SUMS}")
    try:
        return int(json.loads(data["config.json"])["step"]), decode_weights(data[WEIGHTS])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error


def _read(folder: epath.Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} has no {name}: a folder of weights must hold {', '.join(FILES)}; export or "
            "download it again"
        ) from error
    except OSError as error:
        raise _damaged(folder / name, error.strerror or str(error)) from error


def _damaged(path: epath.Path, reason: str) -> UsageError:
    return UsageError(f"{path} is damaged ({reason}): export or download the folder again")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
