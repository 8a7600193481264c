"""What a run's images are scaled and normalised to, kept in its folder for later use.

record_inputs(folder, normalization, image_size)
normalization, image_size = read_inputs(folder)
"""

import io
import zipfile

import numpy as np
from etils import epath

from rattn_jax.data.batches import Normalization
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import is_main_process
from rattn_jax.runs.files import replace_bytes

NORMALIZATION = "normalization.npz"


def record_inputs(folder: epath.Path, normalization: Normalization, image_size: int) -> None:
    """Writes normalization.npz, unless an earlier start of the run has.

    Args:
        folder: the run's folder.
        normalization: of all images.
        image_size: height and width of the images in evaluation.
    """
    path = folder / NORMALIZATION
    if path.exists() or not is_main_process():
        return
    buffer = io.BytesIO()
    mean, scale = (np.asarray(value, np.float32) for value in normalization)
    np.savez(buffer, mean=mean, scale=scale, image_size=np.int32(image_size))
    replace_bytes(path, buffer.getvalue())


def read_inputs(folder: epath.Path) -> tuple[Normalization, int]:
    """What `record_inputs` was given.

    Raises:
        UsageError: the file is missing or damaged.
    """
    path = folder / NORMALIZATION
    if not path.exists():
        raise UsageError(
            f"workdir {folder} has no {NORMALIZATION}, as a run of an older version: start main.py "
            "with this --workdir and the run's config once more, which adds it"
        )
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            normalization = Normalization(arrays["mean"], arrays["scale"])
            return normalization, int(arrays["image_size"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} is damaged ({error}): remove it, and start main.py with this --workdir and "
            "the run's config once more, which adds it"
        ) from error
