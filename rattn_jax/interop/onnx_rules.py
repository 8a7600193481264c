"""The rule for each operation of a trace: the operators of ONNX that compute it.

RULES["sub"](graph, equation, a, b)     # adds operators to the graph; the Value that they compute

Multiplications and additions of constants become one step, strided slices of which the maximum is
taken become a pooling, and a transposition only changes in which order a value's axes are taken to
be stored. What enters a convolution is stored as ONNX wants it, [B, C, H, W], and stays so.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rattn_jax.interop.onnx_graph import Graph


class Windows(NamedTuple):
    """Neighbouring places along an axis of a tensor, at every `stride`-th place.

    Attributes:
        source: name of the tensor.
        axis: the axis as stored.
        first: offset of the first of them.
        taps: how many neighbours.
        stride: distance from one window to the next.
        steps: how far the last window begins from the first, in strides.
        size: length of the axis.
    """

    source: str
    axis: int
    first: int
    taps: int
    stride: int
    steps: int
    size: int

    @property
    def is_pooling(self) -> bool:
        """Whether ONNX's pooling over rows or columns has these windows and no others."""
        fitting = (self.size - self.taps) // self.stride
        return self.axis >= 2 and self.first == 0 and fitting == self.steps


class Value(NamedTuple):
    """A tensor of the graph.

    Attributes:
        name: its name in the graph.
        order: its axes as the trace counts them, in the order in which they are stored.
        windows: of what it is the maximum or, of a single place, a slice.
    """

    name: str
    order: tuple[int, ...]
    windows: Windows | None = None


Operand = Value | np.ndarray
Rule = Callable[..., Value]  # of the graph, the operation in the trace, and its operands


def stored(graph: Graph, x: Value, order: Sequence[int]) -> Value:
    """The value with its axes stored in this order."""
    if x.order == tuple(order):
        return x
    axes = [x.order.index(axis) for axis in order]
    return Value(graph.add("Transpose", x.name, perm=axes), tuple(order))


def _value_and_constant(a: Operand, b: Operand) -> tuple[Value, np.ndarray]:
    """Two operands of which one is a constant, the value first."""
    if isinstance(a, Value):
        assert not isinstance(b, Value)
        return a, np.asarray(b)
    assert isinstance(b, Value)
    return b, np.asarray(a)


def _as_stored(constant: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """A constant that broadcasts with values, for values stored in this order."""
    return constant.transpose(order) if constant.ndim else constant


def _of_one(op: str) -> Rule:
    def rule(graph: Graph, equation: Any, x: Value) -> Value:
        return Value(graph.add(op, x.name), x.order)

    return rule


def _square(graph: Graph, equation: Any, x: Value) -> Value:
    if equation.params.get("y", 2) != 2:
        raise NotImplementedError("no ONNX operator is known for powers other than squares")
    return Value(graph.add("Mul", x.name, x.name), x.order)


def _rsqrt(graph: Graph, equation: Any, x: Value) -> Value:
    return Value(graph.add("Reciprocal", graph.add("Sqrt", x.name)), x.order)


def _cast(graph: Graph, equation: Any, x: Value) -> Value:
    dtype = equation.params["new_dtype"]
    if equation.invars[0].aval.dtype == dtype:
        return x
    if dtype != np.float32:
        raise NotImplementedError(f"networks are written in float32, not {dtype}")
    return Value(graph.add("Cast", x.name, to=1), x.order)


def _arithmetic(op: str) -> Rule:
    """Of two values; with a constant, a multiplication and addition of constants."""

    def rule(graph: Graph, equation: Any, a: Operand, b: Operand) -> Value:
        if isinstance(a, Value) and isinstance(b, Value):
            return Value(graph.add(op, a.name, stored(graph, b, a.order).name), a.order)
        x, constant = _value_and_constant(a, b)
        c = _as_stored(np.asarray(constant, np.float64), x.order)
        one, zero = np.ones_like(c), np.zeros_like(c)
        if op == "Div" and x is b:
            raise NotImplementedError("no ONNX operator is known for a constant over a value")
        scale, shift = {
            "Add": (one, c),
            "Mul": (c, zero),
            "Div": (1 / c if op == "Div" else one, zero),
            "Sub": (one, -c) if x is a else (-one, c),
        }[op]
        return Value(graph.affine(x.name, scale, shift), x.order)

    return rule


def _maximum(graph: Graph, equation: Any, a: Operand, b: Operand) -> Value:
    if not isinstance(a, Value) or not isinstance(b, Value):
        x, constant = _value_and_constant(a, b)
        if constant.any():
            raise NotImplementedError("no ONNX operator is known for a maximum with constants")
        return Value(graph.add("Relu", x.name), x.order)
    first, second = a.windows, b.windows
    if first and second and second == first._replace(first=first.first + first.taps, taps=1):
        windows = first._replace(taps=first.taps + 1)
        if windows.is_pooling:
            return _max_pool(graph, windows, a.order)
    return Value(graph.add("Max", a.name, stored(graph, b, a.order).name), a.order)


def _max_pool(graph: Graph, windows: Windows, order: tuple[int, ...]) -> Value:
    sizes, strides = [1, 1], [1, 1]
    sizes[windows.axis - 2], strides[windows.axis - 2] = windows.taps, windows.stride
    no = [0, 0, 0, 0]
    name = graph.add("MaxPool", windows.source, kernel_shape=sizes, strides=strides, pads=no)
    return Value(name, order, windows)


def _slice(graph: Graph, equation: Any, x: Value) -> Value:
    shape, params = equation.invars[0].aval.shape, equation.params
    strides = params["strides"] or (1,) * len(shape)
    cut = [
        (first, end, x.order.index(axis), stride)
        for axis, (first, end, stride) in enumerate(
            zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        )
        if (first, end, stride) != (0, shape[axis], 1)
    ]
    columns = [graph.constant(np.array(column, np.int64)) for column in zip(*cut, strict=True)]
    output = Value(graph.add("Slice", x.name, *columns), x.order)
    if len(cut) != 1:
        return output
    ((first, end, place, stride),) = cut
    steps = (end - 1 - first) // stride
    size = shape[x.order[place]]
    return output._replace(windows=Windows(x.name, place, first, 1, stride, steps, size))


def _pad(graph: Graph, equation: Any, x: Value, value: np.ndarray) -> Value:
    config = [equation.params["padding_config"][axis] for axis in x.order]
    if any(inner for _, _, inner in config):
        raise NotImplementedError("no ONNX operator is known for padding between values")
    pads = np.array([[low for low, _, _ in config], [high for _, high, _ in config]], np.int64)
    constants = (graph.constant(c) for c in (pads.reshape(-1), np.asarray(value, np.float32)))
    return Value(graph.add("Pad", x.name, *constants), x.order)


def _convolution(graph: Graph, equation: Any, x: Value, kernel: np.ndarray) -> Value:
    params = equation.params
    axes = params["dimension_numbers"]
    x = stored(graph, x, axes.lhs_spec)
    name = graph.add(
        "Conv",
        x.name,
        graph.constant(np.asarray(kernel).transpose(axes.rhs_spec)),
        strides=list(params["window_strides"]),
        pads=[side[end] for end in (0, 1) for side in params["padding"]],
        group=params["feature_group_count"],
    )
    return Value(name, axes.out_spec)


def _pool_of(op: str, more: dict[str, Any]) -> Rule:
    """Pooling with windows over rows and columns; a sum is the mean times their size."""

    def rule(graph: Graph, equation: Any, x: Value, *_: np.ndarray) -> Value:
        params, x = equation.params, stored(graph, x, (0, 3, 1, 2))
        sizes = list(params["window_dimensions"][1:3])
        padding = params["padding"][1:3]
        name = graph.add(
            op,
            x.name,
            kernel_shape=sizes,
            strides=list(params["window_strides"][1:3]),
            pads=[side[end] for end in (0, 1) for side in padding],
            **more,
        )
        if op == "AveragePool":
            name = graph.affine(name, np.array(float(np.prod(sizes))), np.array(0.0))
        return Value(name, x.order)

    return rule


def _sum(graph: Graph, equation: Any, x: Value) -> Value:
    gone = equation.params["axes"]
    axes = graph.constant(np.array([x.order.index(axis) for axis in gone], np.int64))
    left = [axis for axis in x.order if axis not in gone]
    order = tuple(sorted(left).index(axis) for axis in left)
    return Value(graph.add("ReduceSum", x.name, axes, keepdims=0), order)


def _broadcast(graph: Graph, equation: Any, x: Value) -> Value:
    """Adds axes of length 1, which broadcast; they are stored last."""
    places, shape = equation.params["broadcast_dimensions"], equation.params["shape"]
    new = [axis for axis in range(len(shape)) if axis not in places]
    if not new:
        return x
    count = len(x.order)
    axes = graph.constant(np.arange(count, count + len(new), dtype=np.int64))
    order = (*(places[axis] for axis in x.order), *new)
    return Value(graph.add("Unsqueeze", x.name, axes), order)


def _product(graph: Graph, equation: Any, a: Operand, b: Operand) -> Value:
    """Product of a value with a matrix: of all its vectors along one axis."""
    if isinstance(a, Value) and isinstance(b, Value):
        raise NotImplementedError("no ONNX operator is known for a product of two values")
    x, matrix = _value_and_constant(a, b)
    (in_a, in_b), _ = equation.params["dimension_numbers"]
    (axis,), (row,) = (in_a, in_b) if x is a else (in_b, in_a)
    weights = matrix if row == 0 else matrix.T  # [in, out]
    count = len(x.order)
    if x.order.index(axis) < count - 2:
        x = stored(graph, x, [*(other for other in x.order if other != axis), axis])
    if x.order[-1] == axis:
        name = graph.add("MatMul", x.name, graph.constant(weights))
    else:
        name = graph.add("MatMul", graph.constant(weights.T), x.name)
    # The trace has the new axis last or first, and the others in their order.
    others = [other for other in range(count) if other != axis]
    now = [*others, axis] if x is a else [axis, *others]
    return Value(name, tuple(now.index(other) for other in x.order))


def _transpose(graph: Graph, equation: Any, x: Value) -> Value:
    places = equation.params["permutation"]
    return Value(x.name, tuple(places.index(axis) for axis in x.order))


def _concatenate(graph: Graph, equation: Any, *values: Value) -> Value:
    order = values[0].order
    names = [stored(graph, value, order).name for value in values]
    axis = order.index(equation.params["dimension"])
    return Value(graph.add("Concat", *names, axis=axis), order)


RULES: dict[str, Rule] = {
    "add": _arithmetic("Add"),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _cast,
    "div": _arithmetic("Div"),
    "dot_general": _product,
    "integer_pow": _square,
    "logistic": _of_one("Sigmoid"),
    "max": _maximum,
    "mul": _arithmetic("Mul"),
    "pad": _pad,
    "reduce_sum": _sum,
    "reduce_window_max": _pool_of("MaxPool", {}),
    "reduce_window_sum": _pool_of("AveragePool", {"count_include_pad": 1}),
    "rsqrt": _rsqrt,
    "slice": _slice,
    "square": _square,
    "sub": _arithmetic("Sub"),
    "transpose": _transpose,
}
