"""Exports a trained network as one portable file: StableHLO or ONNX.

The file takes images uint8 [B, S, S, 3] for any B, cropped and resized as in the evaluation of the
run. It returns logits float32 [B, classes] and, on request, the masks of the attention modules. It
is read back and compared with the network before it gets its final name.
"""

import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jax import export

from rattn_jax.errors import DataError, UsageError
from rattn_jax.inference.network import Classifier
from rattn_jax.models.attention import in_order

Outputs = dict[str, Any]  # by name: logits, and the masks by the names of their modules
Function = Callable[[Any], Outputs]  # of images

PLATFORMS = ("cpu", "cuda", "tpu")
_CHECKED_BATCH_SIZES = (1, 3)
# Relative to the largest value of an output: compilers round differently in the last of 24 or 8
# bits.
_TOLERANCE, _TOLERANCE_16_BITS = 1e-4, 5e-2


def export_network(
    network: Classifier, path: epath.Path, *, kind: str = "stablehlo", masks: bool = False
) -> float:
    """Writes the file.

    Args:
        network: a trained network.
        path: the file.
        kind: "stablehlo" or "onnx".
        masks: whether it also returns the masks of the attention modules.

    Returns:
        The largest difference from the network, relative to the largest value of an output.

    Raises:
        UsageError: the file cannot be written, there are no masks, or libraries are missing.
        DataError: the outputs of the file differ from those of the network.
    """

    def function(images: Any) -> Outputs:
        if not masks:
            return {"logits": network.logits(network.variables, images)}
        logits, maps = network.logits_and_maps(network.variables, images)
        return {"logits": logits} | {name: maps[name].mask for name in in_order(maps)}

    write, read = {"stablehlo": (_to_stablehlo, _from_stablehlo), "onnx": (_to_onnx, _from_onnx)}[
        kind
    ]
    data = write(function, network.image_size)
    temporary = path.parent / f"{path.name}.new"
    try:
        temporary.write_bytes(data)
        difference = _compare(read(temporary.read_bytes()), function, network)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(
            f"--out={path} cannot be written ({error.strerror}): choose another file"
        ) from error
    except DataError:
        temporary.unlink()
        raise
    return difference


def made_by() -> str:
    """What has written a file: the `fun_name` of StableHLO files, `doc_string` of ONNX files."""
    return f"rattn_jax with jax {jax.__version__}"


def _to_stablehlo(function: Function, size: int) -> bytes:
    shape = export.symbolic_shape(f"batch, {size}, {size}, 3")
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    function.__name__ = made_by()  # the one text that the file has room for
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize())


def _from_stablehlo(data: bytes) -> Function:
    call: Function = jax.jit(export.deserialize(bytearray(data)).call)
    return call


def _to_onnx(function: Function, size: int) -> bytes:
    try:
        import onnxruntime  # noqa: F401 before minutes of work that it will be needed for
        from jax2onnx import to_onnx
    except ImportError as error:
        raise UsageError(
            f"--format=onnx needs {error.name}, which is not installed: pip install -e '.[onnx]', "
            "or choose --format=stablehlo"
        ) from error
    names = list(jax.eval_shape(function, jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)))
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # warns of shapes that it works out later
    model = to_onnx(
        lambda images: tuple(function(images)[name] for name in names),
        inputs=[jax.ShapeDtypeStruct(("batch", size, size, 3), np.uint8)],
        input_names=["images"],
        output_names=names,
    )
    model.producer_name, model.doc_string = "rattn_jax", made_by()
    return model.SerializeToString()


def _from_onnx(data: bytes) -> Function:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))


def _compare(exported: Function, function: Function, network: Classifier) -> float:
    """Largest relative difference of the outputs, at several batch sizes."""
    shape = (max(_CHECKED_BATCH_SIZES), network.image_size, network.image_size, 3)
    images = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    expected = {name: np.asarray(x, np.float32) for name, x in jax.jit(function)(images).items()}
    largest = 0.0
    for size in _CHECKED_BATCH_SIZES:
        found = exported(images[:size])
        if found.keys() != expected.keys():
            raise DataError(f"the exported network has the outputs {', '.join(found)}")
        for name, values in expected.items():
            difference = np.abs(np.asarray(found[name], np.float32) - values[:size]).max()
            largest = max(largest, float(difference / np.abs(values).max()))
    limit = _TOLERANCE_16_BITS if network.config.model.dtype else _TOLERANCE
    if not largest <= limit:
        raise DataError(
            f"the exported network differs from the trained one by {largest:.1g} of its largest "
            f"output, more than {limit:g}: nothing is written; choose another --format"
        )
    return largest
