"""Converts a file with weights of a PyTorch port to the folder of a run.

state = read_state(path)
variables, dropped = convert(state, recognize(state).create_model())    # see `torch_port.py`
write_run(workdir, network, variables, class_names)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from rattn_jax.data.batches import zero_one_normalization
from rattn_jax.errors import UsageError
from rattn_jax.interop.torch_port import PortNetwork, State
from rattn_jax.parallel.mesh import find_devices
from rattn_jax.runs.checkpointer import Checkpointer
from rattn_jax.runs.files import absolute
from rattn_jax.runs.identity import describe_run
from rattn_jax.runs.saved_run import record_inputs
from rattn_jax.runs.workdir import claim_run_folder, open_run_folder
from rattn_jax.training import metrics
from rattn_jax.training.state import TrainState

# What the port's train.py trains on; the names are TFDS's.
_ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")


_CIFAR10 = ("airplane", "automobile", *_ANIMALS, "ship", "truck")


def read_state(path: epath.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a file of `torch.save`, floating-point ones as float32.

    Only tensors are read; no code in the file is run. The prefix "module." of `DataParallel` is
    removed.

    Args:
        path: a file with a state_dict, or with a dictionary that has one as "state_dict".

    Raises:
        UsageError: PyTorch is not installed, or the file is not of this kind.
    """
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"{path} is read with PyTorch, which is not installed: pip install -e '.[torch]'"
        ) from error
    try:
        with path.open("rb") as file:
            found: Any = torch.load(file, map_location="cpu", weights_only=True)
        found = found.get("state_dict", found)
        state = {
            str(name): (value.float() if value.is_floating_point() else value).numpy()
            for name, value in found.items()
        }
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): correct the path") from error
    except Exception as error:  # of many kinds: whatever is found in a file
        raise UsageError(
            f"{path} is damaged, or holds more than tensors, and nothing of it was run: must be a "
            "file of torch.save(model.state_dict(), FILE)"
        ) from error
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): array for name, array in state.items()}
    return state


def write_run(
    workdir: epath.PathLike,
    network: PortNetwork,
    variables: Mapping[str, Any],
    class_names: Sequence[str],
) -> epath.Path:
    """Writes the folder of a run with a checkpoint of step 0; returns its absolute path.

    Args:
        workdir: the folder, new or empty.
        network: the network.
        variables: its `params` and `batch_stats`.
        class_names: names of the classes, in the order of the outputs.

    Raises:
        UsageError: the folder is not empty, or cannot be written.
        SaveError: the checkpoint cannot be written.
    """
    folder = absolute(workdir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"workdir {folder} is not empty: choose a new folder")
    config = _config(network, class_names)
    open_run_folder(folder, config)
    sizes = {"num_train": 0, "num_test": 0}
    dataset = {"class_names": list(class_names), **sizes}
    run = describe_run(config, dataset)
    claim_run_folder(folder, run, {}, find_devices(), print)
    record_inputs(folder, zero_one_normalization(), network.image_size)
    state = TrainState(
        step=jnp.int32(0),
        opt_state=(),
        ema=None,
        metrics=metrics.empty(),
        num_nonfinite=jnp.int32(0),
        nonfinite_step=jnp.int32(-1),
        **variables,
    )
    with Checkpointer(folder / "checkpoints", 1, record=run) as checkpoints:
        checkpoints.save(state)
    return folder


def _config(network: PortNetwork, class_names: Sequence[str]) -> dict[str, Any]:
    """The part of a config that is read from a trained network; not enough to train."""
    return {
        "imported": network.name,
        "normalization": "zero_one",  # as in the port's train.py and train_mixup.py
        "data_dir": None,
        "validation_examples": 0,
        "model": {
            "name": network.model_name,
            **network.keywords,
            "mask_activation": None,
            "dtype": None,
        },
        "dataset": {
            "name": "cifar10" if tuple(class_names) == _CIFAR10 else "unknown",
            "train_split": "train",
            "test_split": None,
            "test_fraction": 0.1,
            "eval_crop_fraction": 1.0,
            "exact_pixels": True,
            "crop_files": True,
            "test_exclude_file": None,
            "num_threads": 0,
            "label_noise": {"clean_ratio": 1.0, "matrix": None},
        },
    }


def read_class_names(path: epath.Path | None, num_classes: int) -> tuple[str, ...]:
    """Reads class names, one per line; without a file those of CIFAR-10, or numbers.

    Raises:
        UsageError: the file cannot be read, or has another number of names.
    """
    if path is None:
        numbers = tuple(str(i) for i in range(num_classes))
        return _CIFAR10 if num_classes == len(_CIFAR10) else numbers
    try:
        names = tuple(path.read_text().removeprefix("\ufeff").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--class-names={path} cannot be read ({error}): correct it") from error
    names = tuple(name.strip() for name in names if name.strip())
    if len(names) != num_classes:
        raise UsageError(
            f"--class-names={path} has {len(names)} lines, and the network {num_classes} classes: "
            "must be a name a class, in the order of the outputs"
        )
    return names


def describe_dropped(state: State, dropped: Sequence[str]) -> str:
    """Describes the dropped arrays by part of the network, and their fraction of the file."""
    size, total = (sum(state[name].size for name in names) for names in (dropped, state))
    weights = [name for name in dropped if not name.endswith(".num_batches_tracked")]
    places = Counter(name.split(".")[0] for name in weights)
    listed = ", ".join(f"{place} {count}" for place, count in places.items())
    return (
        f"left out {size:,} of {total:,} numbers ({size / total:.1%}): "
        f"{len(dropped) - len(weights)} counters of batches, and conv4.weight of {len(weights)} "
        f"units that never use it ({listed})"
    )
