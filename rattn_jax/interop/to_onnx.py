"""Translates a network, as JAX traces it, into a graph of ONNX operators.

graph, outputs = translate(function, size=32)
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr, Literal

from rattn_jax.interop.onnx_graph import Graph
from rattn_jax.interop.onnx_rules import RULES, Operand, Value, stored
from rattn_jax.models.layers import Conv, convolve


def translate(function: Callable[[Any], Any], size: int) -> tuple[Graph, list[str]]:
    """The graph of a function of images uint8 [B, size, size, 3], and the names of its outputs.

    Those are in the order of `jax.tree.leaves`, and their axes in the order of the function's.

    Raises:
        NotImplementedError: an operation that no network here has.
    """
    shape = export.symbolic_shape(f"batch, {size}, {size}, 3")
    with nn.intercept_methods(_in_one_operation):
        traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(shape, np.uint8))
    graph = Graph()
    found = _run(graph, traced, [Value("images", (0, 1, 2, 3))])
    return graph, [stored(graph, x, sorted(x.order)).name for x in found]


def _in_one_operation(next_method: Any, arguments: Any, keywords: Any, context: Any) -> Any:
    """Has a `Conv` that computes a product of matrices compute the convolution that it is."""
    layer = context.module
    if isinstance(layer, Conv) and context.method_name == "__call__":
        (x,) = arguments
        kernel: Any = layer.get_variable("params", "kernel")
        return convolve(x, kernel, layer.stride, layer.groups)
    return next_method(*arguments, **keywords)


def _run(graph: Graph, traced: ClosedJaxpr, inputs: Sequence[Operand]) -> list[Any]:
    """Adds a trace to the graph; returns its outputs."""
    jaxpr = traced.jaxpr
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, traced.consts, strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: Any) -> Any:
        return np.asarray(variable.val) if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        outputs = _translate(graph, equation, [read(variable) for variable in equation.invars])
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _translate(graph: Graph, equation: Any, operands: list[Any]) -> Sequence[Operand]:
    name, params = equation.primitive.name, equation.params
    inner = params.get("jaxpr", params.get("call_jaxpr"))
    if inner is not None:  # a function in the function, as of `jit` or with its own gradient
        return _run(graph, inner if hasattr(inner, "consts") else ClosedJaxpr(inner, ()), operands)
    if not any(isinstance(x, Value) for x in operands):
        return [_constant(equation, operands)]
    if name not in RULES:
        raise NotImplementedError(f"no ONNX operator is known for the operation {name}")
    return [RULES[name](graph, equation, *operands)]


def _constant(equation: Any, operands: list[Any]) -> np.ndarray:
    """Computes what depends on no image; over the batch it is one value, which broadcasts."""
    params = dict(equation.params)
    if "shape" in params:
        params["shape"] = tuple(side if isinstance(side, int) else 1 for side in params["shape"])
    return np.asarray(equation.primitive.bind(*operands, **params))
