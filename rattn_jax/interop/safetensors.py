"""A trained network as a folder to hand on: weights in safetensors, config, and a card.

`runs/weights_folder.py` says what is in it; `rattn_jax.load`, `init_from` and --workdir take it.
"""

import dataclasses
import json
from typing import Any

from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from rattn_jax.config.schema import split_place
from rattn_jax.errors import UsageError
from rattn_jax.inference.examples import split_logits
from rattn_jax.inference.network import Classifier
from rattn_jax.interop.card import Evaluation, compare, write_card
from rattn_jax.runs.identity import PLACES
from rattn_jax.runs.saved_run import encode_inputs
from rattn_jax.runs.weights_folder import (
    CARD,
    WEIGHTS,
    decode_weights,
    encode_weights,
    is_weights_folder,
    write_weights_folder,
)
from rattn_jax.runs.workdir import RECORD

DTYPES = ("float32", "float16")
_SPLIT = "test"  # which the card's error is of
_LOCAL_KEYS = ("data_dir", "compilation_cache_dir")  # of the machine, and no part of what it is


def export_folder(
    network: Classifier,
    folder: epath.Path,
    *,
    dtype: str = "float32",
    evaluate: bool = False,
    note: str | None = None,
) -> Evaluation | None:
    """Writes the folder.

    Args:
        network: a trained network.
        folder: where to; new, or a folder of weights, which is replaced.
        dtype: one of `DTYPES`, that parameters are stored in.
        evaluate: whether to measure the error of what is stored on the test split.
        note: a sentence on the data, for the card.

    Returns:
        What was measured; None without `evaluate`.

    Raises:
        UsageError: the folder cannot be written, a parameter is too large for the type, or the
            dataset cannot be opened.
        DataError: a test example cannot be used.
    """
    is_new = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_new and not is_weights_folder(folder):
        raise UsageError(f"--out={folder} is or holds something else: choose a new folder")
    weights = encode_weights(network.variables, dtype)
    stored = dataclasses.replace(network, variables=decode_weights(weights))
    evaluation = None
    if evaluate:
        logits, labels = split_logits(stored, _SPLIT)
        exact = logits if dtype == "float32" else split_logits(network, _SPLIT)[0]
        evaluation = compare(_SPLIT, labels, logits, exact)
    record = json.loads((network.folder / RECORD).read_text())
    record["config"] |= {key: None for key in _LOCAL_KEYS if key in record["config"]}
    record["config"] = _without_folders(record["config"])
    record |= {"step": network.step, "evaluation": evaluation and dataclasses.asdict(evaluation)}
    card = write_card(network, record, dtype, evaluation, note)
    files = {
        RECORD: (json.dumps(record, indent=2) + "\n").encode(),
        "normalization.npz": encode_inputs(network.normalization, network.image_size),
        WEIGHTS: weights,
        CARD: card.encode(errors="backslashreplace"),  # names of classes may not be UTF-8
    }
    write_weights_folder(folder, files)
    return evaluation


def _without_folders(config: dict[str, Any]) -> dict[str, Any]:
    """The nested config, with places as the last part of their paths; addresses stay."""
    flat = flatten_dict(config, keep_empty_nodes=True)
    for key in (tuple(name.split(".")) for name in PLACES):
        value = flat.get(key) or ""
        kind, place = split_place(value)
        if not kind and key != ("dataset", "name"):  # which without a kind is a name
            place = value
        if place and "://" not in place:
            flat[key] = kind + epath.Path(place).name
    return unflatten_dict(flat)
