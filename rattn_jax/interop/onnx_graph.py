"""A graph of ONNX operators: built node by node, made smaller, and written as a file.

graph = Graph()
y = graph.add("Relu", graph.affine("x", scale, shift))
small = simplify(graph, outputs=[y])
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

OPSET, IR_VERSION = 18, 9  # of 2022 and 2023: what runs such files need not be newer
# A step of every graph while it is built: input * constant + constant, as batch norm is, too.
AFFINE = "Affine"


@dataclasses.dataclass(frozen=True)
class Node:
    """An operator with one output, under its name in ONNX, or `AFFINE`."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


class Graph:
    """Operators in the order of their computation, and the constants that they read.

    Attributes:
        constants: arrays by name.
        nodes: operators by the name of their output.
    """

    def __init__(self) -> None:
        self.constants: dict[str, np.ndarray] = {}
        self.nodes: dict[str, Node] = {}
        self._numbers = itertools.count()

    def constant(self, value: Any) -> str:
        """Adds a constant; returns its name."""
        name = f"c{next(self._numbers)}"
        self.constants[name] = np.asarray(value)
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operator; returns the name of its output."""
        output = f"{op.lower()}{next(self._numbers)}"
        self.nodes[output] = Node(op, inputs, output, attributes)
        return output

    def affine(self, x: str, scale: np.ndarray, shift: np.ndarray) -> str:
        """Adds `x * scale + shift`; after another such step it becomes one with that."""
        before = self.nodes.get(x)
        if before and before.op == AFFINE:
            first, second = (self.constants[name] for name in before.inputs[1:])
            x, scale, shift = before.inputs[0], first * scale, second * scale + shift
        return self.add(AFFINE, x, self.constant(scale), self.constant(shift))


def simplify(graph: Graph, outputs: Sequence[str]) -> list[Node]:
    """The nodes that the outputs need, with one operator for several where there is one.

    What multiplies and adds a constant for each channel after a convolution goes into its kernel
    and bias; padding goes into max pooling, and pooling over rows and columns becomes one.
    """
    nodes = _needed(graph.nodes, outputs)
    uses = Counter(outputs) + Counter(name for node in nodes for name in node.inputs)
    result: dict[str, Node] = {}
    for node in nodes:
        while merged := _with_the_one_before(graph, node, result, uses):
            del result[node.inputs[0]]
            node = merged
        result[node.output] = node
    return [plain for node in result.values() for plain in _without_affine(graph, node)]


def _needed(nodes: Mapping[str, Node], outputs: Sequence[str]) -> list[Node]:
    needed = set(outputs)
    for node in reversed(list(nodes.values())):
        if node.output in needed:
            needed.update(node.inputs)
    return [node for node in nodes.values() if node.output in needed]


def _with_the_one_before(
    graph: Graph, node: Node, earlier: Mapping[str, Node], uses: Mapping[str, int]
) -> Node | None:
    """One node for this one and that of its input, unless others read that, too."""
    before = earlier.get(node.inputs[0])
    if before is None or uses[before.output] > 1 or (before.op, node.op) not in _MERGES:
        return None
    return _MERGES[before.op, node.op](graph, before, node)


def _conv_with_affine(graph: Graph, conv: Node, affine: Node) -> Node | None:
    kernel, *bias = (graph.constants[name] for name in conv.inputs[1:])
    scale, shift = (graph.constants[name] for name in affine.inputs[1:])
    if not _is_per_channel(scale) or not _is_per_channel(shift):
        return None
    (scale, shift), channels = (value.reshape(-1) for value in (scale, shift)), (len(kernel),)
    shift = shift + scale * (bias[0] if bias else 0)
    constants = (
        graph.constant((kernel * scale.reshape(-1, 1, 1, 1)).astype(np.float32)),
        graph.constant(np.broadcast_to(shift, channels).astype(np.float32)),
    )
    return Node("Conv", (conv.inputs[0], *constants), affine.output, conv.attributes)


def _pad_with_pool(graph: Graph, pad: Node, pool: Node) -> Node | None:
    pads = graph.constants[pad.inputs[1]].reshape(2, -1)
    if pads[:, :2].any() or not np.isneginf(graph.constants[pad.inputs[2]]):
        return None
    both = pads[:, 2:].reshape(-1) + pool.attributes["pads"]
    return Node(pool.op, pad.inputs[:1], pool.output, {**pool.attributes, "pads": both.tolist()})


def _pool_with_pool(graph: Graph, first: Node, second: Node) -> Node | None:
    sizes = zip(first.attributes["kernel_shape"], second.attributes["kernel_shape"], strict=True)
    if any(min(both) > 1 for both in sizes):
        return None  # over the same axis
    larger = {
        key: np.maximum(first.attributes[key], second.attributes[key]).tolist()
        for key in first.attributes
    }
    return Node(first.op, first.inputs, second.output, larger)


_MERGES: dict[tuple[str, str], Callable[[Graph, Any, Node], Node | None]] = {
    ("Conv", AFFINE): _conv_with_affine,
    ("Pad", "MaxPool"): _pad_with_pool,
    ("MaxPool", "MaxPool"): _pool_with_pool,
}


def _is_per_channel(value: np.ndarray) -> bool:
    """Whether what broadcasts with [B, C, H, W] is one value for each channel, or for all."""
    return value.ndim == 0 or (value.ndim == 4 and value.size == value.shape[1])


def _without_affine(graph: Graph, node: Node) -> Iterator[Node]:
    """The node in operators of ONNX."""
    if node.op != AFFINE:
        yield node
        return
    x, *names = node.inputs
    scale, shift = (graph.constants[name].astype(np.float32) for name in names)
    if not shift.any():
        yield Node("Mul", (x, graph.constant(scale)), node.output, {})
    elif (scale == 1).all():
        yield Node("Add", (x, graph.constant(shift)), node.output, {})
    elif scale.shape == shift.shape and scale.ndim == 4 and _is_per_channel(scale):
        mean, variance = np.zeros(scale.size, np.float32), np.ones(scale.size, np.float32)
        vectors = (scale.reshape(-1), shift.reshape(-1), mean, variance)
        constants = (graph.constant(vector) for vector in vectors)
        yield Node("BatchNormalization", (x, *constants), node.output, {"epsilon": 0.0})
    else:
        product = f"{node.output}_product"
        yield Node("Mul", (x, graph.constant(scale)), product, {})
        yield Node("Add", (product, graph.constant(shift)), node.output, {})


def to_model(
    graph: Graph,
    outputs: Mapping[str, str],
    shape: Sequence[int | str],
    metadata: Mapping[str, str],
) -> Any:
    """The graph as a model of the library `onnx`, simplified.

    Args:
        graph: has the input "images", uint8.
        outputs: names of the outputs, and of the tensors of the graph that they are, float32.
        shape: of the images; a text is the name of a length that is free.
        metadata: what the file says about itself.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = simplify(graph, list(outputs.values()))
    names = {name: output for output, name in outputs.items()}
    used = dict.fromkeys(name for node in nodes for name in node.inputs if name in graph.constants)
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    node.op,
                    [names.get(name, name) for name in node.inputs],
                    [names.get(node.output, node.output)],
                    **node.attributes,
                )
                for node in nodes
            ],
            "rattn_jax",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(graph.constants[name], name) for name in used],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="rattn_jax",
    )
    helper.set_model_props(model, dict(metadata))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(inferred)
    return inferred
