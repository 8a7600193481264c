"""Reads a trained network and the normalization of its images from the folder of a run.

run = read_saved_run("runs/digits")
run.model.apply(run.variables, normalize(images, run.normalization), train=False)
"""

import dataclasses
import io
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from etils import epath

from rattn_jax.config.schema import KeepBestConfig, RunConfig
from rattn_jax.data.batches import Normalization
from rattn_jax.data.class_names import readable_names
from rattn_jax.errors import DataError, UsageError
from rattn_jax.models.registry import create_model
from rattn_jax.parallel.mesh import is_main_process
from rattn_jax.runs.best import BEST, LAST, best_step
from rattn_jax.runs.checkpoint_files import all_steps, read_newest, try_to_read
from rattn_jax.runs.files import check_can_hold_checkpoints, replace_bytes
from rattn_jax.runs.pretrained import find_folder
from rattn_jax.runs.rows import read_rows
from rattn_jax.runs.weights_folder import is_weights_folder, read_weights
from rattn_jax.runs.workdir import read_run

NORMALIZATION = "normalization.npz"


def record_inputs(folder: epath.Path, normalization: Normalization, image_size: int) -> None:
    """Writes normalization.npz.

    Args:
        folder: the run's folder.
        normalization: of all images.
        image_size: height and width of the images in evaluation.
    """
    if is_main_process():
        replace_bytes(folder / NORMALIZATION, encode_inputs(normalization, image_size))


def encode_inputs(normalization: Normalization, image_size: int) -> bytes:
    """The content of normalization.npz; see `record_inputs`."""
    buffer = io.BytesIO()
    mean, scale = (np.asarray(value, np.float32) for value in normalization)
    np.savez(buffer, mean=mean, scale=scale, image_size=np.int32(image_size))
    return buffer.getvalue()


def kept_normalization(folder: epath.Path) -> Normalization | None:
    """The normalization with which the run in the folder goes on; None without a checkpoint.

    It is None also for a run started before it was kept.

    Raises:
        UsageError: the file is damaged.
    """
    goes_on = all_steps(folder / "checkpoints") and (folder / NORMALIZATION).exists()
    return read_inputs(folder)[0] if goes_on else None


def read_inputs(folder: epath.Path) -> tuple[Normalization, int]:
    """Reads normalization.npz: the normalization, and the image size in evaluation.

    Raises:
        UsageError: the file is missing or damaged.
    """
    path = folder / NORMALIZATION
    if not path.exists():
        raise UsageError(
            f"workdir {folder} has no {NORMALIZATION}, because the run is of an older version: "
            "train once more with this --workdir and the config of the run, which adds it"
        )
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            normalization = Normalization(arrays["mean"], arrays["scale"])
            return normalization, int(arrays["image_size"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} is damaged ({error}): remove it, and train once more with this --workdir "
            "and the config of the run, which adds it"
        ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class SavedRun:
    """A trained network.

    Attributes:
        folder: the run's folder.
        step: number of updates of the checkpoint.
        config: the run's config.
        model: the network.
        variables: parameters and batch statistics; their EMA if the run keeps one.
        class_names: names of the classes, in the order of the outputs.
        image_size: height and width of its images.
        crop_fraction: size of the center crop, as a fraction of the shorter side.
        normalization: normalization of its images.
    """

    folder: epath.Path
    step: int
    config: RunConfig
    model: nn.Module
    variables: Mapping[str, Any]
    class_names: tuple[str, ...]
    image_size: int
    crop_fraction: float
    normalization: Normalization

    @property
    def readable_names(self) -> tuple[str, ...]:
        """The classes' names as people read them, in the order of the outputs."""
        return readable_names(self.class_names)


def read_saved_run(workdir: epath.PathLike, step: int | str = LAST) -> SavedRun:
    """Reads the network of a checkpoint, without changing the folder.

    Args:
        workdir: the run's folder, a folder of weights, or what else `find_folder` finds.
        step: number of updates of the checkpoint; "last" is the latest valid one, "best" the one
            that `config.keep_best` has chosen.

    Raises:
        UsageError: the folder holds no run, no such checkpoint, or one of an older version; there
            is no such pretrained network, or its files are damaged.
        DataError: all checkpoints are damaged, or one could not be read.
    """
    folder = find_folder(workdir)
    exported = read_weights(folder) if is_weights_folder(folder) else None  # checks all files
    config, dataset = read_run(folder)
    normalization, image_size = read_inputs(folder)
    if exported and step not in (LAST, exported[0]):
        raise UsageError(
            f"--step={step}: {folder} holds weights of step {exported[0]} alone; choose that, or "
            "the folder of the run"
        )
    step, variables = exported or _read_checkpoint(folder, step, config.keep_best)
    # These keys matter only in training: modules are saved apart, batch statistics are fixed.
    network = dataclasses.replace(config.model, scan_modules=None, remat=None)
    config = dataclasses.replace(config, model=network, sync_batch_norm=False)
    class_names = tuple(dataset["class_names"])
    return SavedRun(
        folder=folder,
        step=step,
        config=config,
        model=create_model(network.name, len(class_names), **network.keywords()),
        variables=variables,
        class_names=class_names,
        image_size=image_size,
        crop_fraction=config.dataset.eval_crop_fraction,
        normalization=normalization,
    )


def _read_checkpoint(
    folder: epath.Path, step: int | str, keep_best: KeepBestConfig
) -> tuple[int, Mapping[str, Any]]:
    """Step and variables of a checkpoint."""
    check_can_hold_checkpoints(folder)
    checkpoints, asked = folder / "checkpoints", step
    steps = all_steps(checkpoints)
    if not steps:
        raise UsageError(
            f"workdir {folder} has no checkpoint yet: train until the first one is saved"
        )
    if step == BEST:
        best = best_step(read_rows(folder / "metrics.jsonl"), keep_best, steps)
        if best is None:
            raise UsageError(
                f"--step={BEST}: workdir {folder} has no best checkpoint; train with "
                "--config.keep_best.metric=error_top1, or choose another step"
            )
        step = best
    if step == LAST:
        step, state = read_newest(checkpoints, _warn)
    elif step in steps:
        path = checkpoints / str(step)
        found = try_to_read(path)
        if isinstance(found, str):
            if not path.exists():  # removed by the run, which is training
                return _read_checkpoint(folder, asked, keep_best)
            raise DataError(f"{found}: choose another --step")
        state = found[0]
    else:
        raise UsageError(
            f"--step={step}: workdir {folder} has no such checkpoint; must be one of "
            f"{', '.join(map(str, steps))}, {LAST} or {BEST}"
        )
    return int(step), state["ema"] or {name: state[name] for name in ("params", "batch_stats")}


def _warn(text: str) -> None:
    print(text, file=sys.stderr)
