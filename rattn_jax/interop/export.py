"""Exports a trained network as one portable file: StableHLO or ONNX.

The file takes images uint8 [B, S, S, 3] for any B, cropped and resized as in the evaluation of the
run. It returns logits float32 [B, classes] and, on request, the masks of the attention modules. It
is read and compared with the network before it is written.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from etils import epath
from jax import export

from rattn_jax.errors import DataError, UsageError
from rattn_jax.inference.network import Classifier
from rattn_jax.interop.onnx_graph import to_model
from rattn_jax.interop.to_onnx import translate
from rattn_jax.models.attention import in_order
from rattn_jax.runs.files import is_remote, replace_bytes, replacing

Outputs = dict[str, Any]  # by name: logits, and the masks by the names of their modules
Function = Callable[[Any], Outputs]  # of images

PLATFORMS = ("cpu", "cuda", "tpu")
_CHECKED_BATCH_SIZES = (1, 3)
_TIMED_CALLS = 20
# Relative to the largest value of an output: compilers round differently in the last of 24 or 8
# bits.
_TOLERANCE, _TOLERANCE_16_BITS = 1e-4, 5e-2


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written, beside the network.

    Attributes:
        difference: the largest from the network, relative to the largest value of an output.
        num_nodes: operators of an ONNX file; None for StableHLO, which is compiled where it runs.
        milliseconds: that the file needs for one image on this machine, the median of some calls.
        network_milliseconds: that the compiled network needs.
    """

    difference: float
    num_nodes: int | None
    milliseconds: float
    network_milliseconds: float

    def __str__(self) -> str:
        nodes = "" if self.num_nodes is None else f"{self.num_nodes:,} nodes, "
        return (
            f"{nodes}differs from the network by {self.difference:.1g} of the largest output; one "
            f"image takes {self.milliseconds:.2f} ms, the network {self.network_milliseconds:.2f}"
        )


def export_network(
    network: Classifier, path: epath.Path, *, kind: str = "stablehlo", masks: bool = False
) -> Exported:
    """Writes the file; beside StableHLO, which holds no texts, a file with `facts` as JSON.

    Args:
        network: a trained network.
        path: the file.
        kind: "stablehlo" or "onnx".
        masks: whether it also returns the masks of the attention modules.

    Raises:
        UsageError: the file cannot be written, a file beside it would be lost, there are no masks,
            or libraries are missing.
        DataError: the outputs of the file differ from those of the network.
    """
    beside = None if kind == "onnx" else path.parent / f"{path.name}.json"
    with _refusals_of(path):
        _check_can_write(path, beside)
    function, about = _outputs(network, masks), facts(network)
    if kind == "onnx":
        # Whatever the network computes in: few programs convolve in bfloat16.
        plain = dataclasses.replace(network, model=network.model.clone(dtype=None))
        num_nodes, data = _to_onnx(_outputs(plain, masks), network.image_size, about)
        read = _from_onnx
    else:
        num_nodes, data = None, _to_stablehlo(function, network.image_size)
        read = _from_stablehlo
    found = _compare(read(data), function, network)
    with _refusals_of(path), replacing(path) as stream:
        stream.write(data)
        if beside is not None:
            replace_bytes(beside, json.dumps(about, indent=2).encode())
    return dataclasses.replace(found, num_nodes=num_nodes)


@contextmanager
def _refusals_of(path: epath.Path) -> Iterator[None]:
    """Has what the disk refuses say which file to choose anew."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"--out={path} cannot be written ({error.strerror}): choose another file"
        ) from error


def _check_can_write(path: epath.Path, beside: epath.Path | None) -> None:
    """Raises UsageError if an export must not replace what is there, OSError if it cannot."""
    if not is_remote(path):
        path.parent.stat()
    if path.exists() and not path.is_file():
        raise UsageError(f"--out={path} is a folder or a device: name a file")
    if beside is None or not beside.exists():
        return
    try:
        about = json.loads(beside.read_bytes())
    except ValueError:
        about = None
    if not (isinstance(about, dict) and "made_by" in about):
        raise UsageError(
            f"--out={path} would replace {beside}, which no export has written: choose another file"
        )


def facts(network: Classifier) -> dict[str, Any]:
    """What a file's user must know: classes, in the order of the logits, and preprocessing."""
    return {
        "classes": list(network.class_names),
        "readable_classes": list(network.readable_names),
        "probabilities": f"the {network.config.loss} of the logits",
        "preprocessing": {
            "color": "RGB",
            "crop_fraction": network.crop_fraction,
            "crop": "the middle square, whose side is crop_fraction of the shorter side",
            "image_size": network.image_size,
            **_reading(network),
            "input": "uint8 from 0 to 255 [batch, height, width, color]; the file normalizes it",
        },
        "network": network.config.model.name,
        "updates": network.step,
        "made_by": made_by(),
    }


def _reading(network: Classifier) -> dict[str, str]:
    if network.config.dataset.exact_pixels:
        return {
            "orientation": "that of EXIF is applied first",
            "resize": "to image_size, linear with anti-aliasing, as Pillow's BILINEAR",
        }
    return {
        "orientation": "as stored",
        "resize": "to image_size, as OpenCV's INTER_AREA to a half or less, else INTER_LINEAR",
    }


def _outputs(network: Classifier, masks: bool) -> Function:
    def function(images: Any) -> Outputs:
        if not masks:
            return {"logits": network.logits(network.variables, images)}
        logits, maps = network.logits_and_maps(network.variables, images)
        return {"logits": logits} | {name: maps[name].mask for name in in_order(maps)}

    return function


def made_by() -> str:
    """What has written a file; the `fun_name` of StableHLO files."""
    return f"rattn_jax with jax {jax.__version__}"


def _to_stablehlo(function: Function, size: int) -> bytes:
    shape = export.symbolic_shape(f"batch, {size}, {size}, 3")
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    function.__name__ = made_by()  # the one text that the file has room for
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize())


def _from_stablehlo(data: bytes) -> Function:
    call: Function = jax.jit(export.deserialize(bytearray(data)).call)
    return call


def _to_onnx(function: Function, size: int, about: dict[str, Any]) -> tuple[int, bytes]:
    """The number of operators, and the file."""
    try:
        import onnx  # noqa: F401 before work that they will be needed for
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--format=onnx needs {error.name}, which is not installed: pip install "
            "-e '.[onnx]', or choose --format=stablehlo"
        ) from error
    names = list(jax.eval_shape(function, jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)))
    try:
        graph, tensors = translate(function, size)
    except NotImplementedError as error:
        raise UsageError(f"--format=onnx: {error}; choose --format=stablehlo") from error
    leaves = dict(zip(sorted(names), tensors, strict=True))
    metadata = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()
    }
    outputs = {name: leaves[name] for name in names}
    model = to_model(graph, outputs, ("batch", size, size, 3), metadata)
    return len(model.graph.node), model.SerializeToString()


def _from_onnx(data: bytes) -> Function:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))


def _compare(exported: Function, function: Function, network: Classifier) -> Exported:
    """Compares outputs at several batch sizes, and times for one image."""
    count, compiled = max(_CHECKED_BATCH_SIZES), jax.jit(function)
    shape = (count, network.image_size, network.image_size, 3)
    images = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    rows = [jax.device_get(compiled(image[None])) for image in images]
    expected = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    largest = 0.0
    for size in _CHECKED_BATCH_SIZES:
        found = exported(images[:size])
        if found.keys() != expected.keys():
            raise DataError(f"the exported network has the outputs {', '.join(found)}")
        for name, values in expected.items():
            difference = np.abs(np.asarray(found[name], np.float32) - values[:size]).max()
            share = float(difference / (np.abs(values).max() or 1.0))
            largest = math.inf if math.isnan(share) else max(largest, share)
    limit = _TOLERANCE_16_BITS if network.config.model.dtype else _TOLERANCE
    if not largest <= limit:
        raise DataError(
            f"the exported network differs from the trained one by {largest:.1g} of its largest "
            f"output, more than {limit:g}: nothing is written; choose another --format"
        )
    times = [_milliseconds(call, images[:1]) for call in (exported, compiled)]
    return Exported(largest, None, *times)


def _milliseconds(call: Function, images: np.ndarray) -> float:
    times = []
    for _ in range(_TIMED_CALLS):
        start = time.perf_counter()
        jax.block_until_ready(call(images))
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))
