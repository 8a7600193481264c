"""Depth, size and cost of the networks, computed from a trace without running them."""

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from rattn_jax.models.registry import create_model

# The paper's parameters (millions) and multiply-adds (billions): tables 2, 6 and 7.
PAPER: dict[str, tuple[float | None, float | None]] = {
    "attention56": (31.9, 6.3),
    "attention92": (51.3, 10.4),
    "attentioninception56": (31.9, 6.3),
    "attentionnext56": (31.9, 6.3),
    "resnet152": (60.2, 11.3),
    "resnet200": (64.7, 15.0),
    "resnext101": (44.5, 7.8),
    "attention92_cifar": (1.9, None),
    "attention236_cifar": (5.1, None),
    "attention452_cifar": (8.6, None),
    "resnet164_cifar": (1.7, None),
    "resnet1001_cifar": (10.3, None),
    "wrn16_8_cifar": (11.0, None),
    "wrn28_10_cifar": (36.5, None),
}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution or matrix product of a network.

    Attributes:
        name: path of its module.
        shape: shape of its output for one image.
        parameters: number of its weights and biases.
        multiply_adds: multiplications for one image.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True)
class Description:
    """Size and cost of a network.

    Attributes:
        name: name of the network.
        input_size: side of the images.
        num_classes: number of classes.
        depth: weighted layers along the trunk.
        parameters: learnable parameters.
        parameters_and_statistics: parameters and running averages of batch norm.
        multiply_adds: multiplications of convolutions and matrix products for one image.
        activation_bytes: memory that the forward pass keeps for the backward pass of a batch.
        batch_size: images of that batch.
        paper_parameters: the paper's parameters; None if it gives none.
        paper_multiply_adds: the paper's "FLOPs"; None if it gives none for images of this size.
    """

    name: str
    input_size: int
    num_classes: int
    depth: int
    parameters: int
    parameters_and_statistics: int
    multiply_adds: int
    activation_bytes: int
    batch_size: int
    paper_parameters: float | None
    paper_multiply_adds: float | None


def standard_input(name: str) -> tuple[int, int]:
    """Image size and number of classes that a network is designed for."""
    if name.endswith("_cifar"):
        return 32, 10
    return (299 if name.startswith("inception_resnet") else 224), 1000


def layers(model: nn.Module, input_size: int) -> list[Layer]:
    """Every convolution and matrix product of the network, in order of computation."""
    return trace(model, input_size)[1]


def describe(name: str, input_size: int | None = None, batch_size: int = 64) -> Description:
    """Size and cost of the network `name`, by default at its standard input size.

    Raises:
        UsageError: unknown name, or images too small for the network.
    """
    standard_size, num_classes = standard_input(name)
    size = input_size or standard_size
    model: Any = create_model(name, num_classes)
    variables, products = trace(model, size)
    parameters = _size(variables["params"])
    paper_parameters, paper_multiply_adds = PAPER.get(name, (None, None))
    if size != standard_size:
        paper_multiply_adds = None
    return Description(
        name=name,
        input_size=size,
        num_classes=num_classes,
        depth=model.depth,
        parameters=parameters,
        parameters_and_statistics=parameters + _size(variables["batch_stats"]),
        multiply_adds=sum(layer.multiply_adds for layer in products),
        activation_bytes=_activation_bytes(model, variables, size, batch_size),
        batch_size=batch_size,
        paper_parameters=paper_parameters and round(paper_parameters * 1e6),
        paper_multiply_adds=paper_multiply_adds and round(paper_multiply_adds * 1e9),
    )


def trace(model: nn.Module, input_size: int) -> tuple[Any, list[Layer]]:
    """Shapes of the variables, and the products of the forward pass, from one trace."""
    images = jax.ShapeDtypeStruct((1, input_size, input_size, 3), jnp.float32)
    initialize = partial(model.init_with_output, train=False)
    jaxpr, (_, variables) = jax.make_jaxpr(initialize, return_shape=True)(jax.random.key(0), images)
    weights: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        name = "/".join(key.key for key in path[:-1])
        weights[name] = weights.get(name, 0) + leaf.size
    products = [
        Layer(name, shape[1:], weights[name], count)
        for name, shape, count in _products(jaxpr.jaxpr, "")
        if name in weights  # interpolation is a product, too, but no layer
    ]
    return variables, products


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _activation_bytes(model: nn.Module, variables: Any, size: int, batch_size: int) -> int:
    """Bytes of the arrays that the backward pass keeps, without the parameters."""
    images = jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.float32)

    def backward(variables: Any, images: Any) -> Any:
        def forward(params: Any) -> Any:
            inputs = variables | {"params": params}
            return model.apply(inputs, images, train=True, mutable=["batch_stats"])

        return jax.vjp(forward, variables["params"], has_aux=True)[1]

    held = jax.eval_shape(backward, variables, images)
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(held))
    return total - 4 * _size(variables["params"])


def _products(jaxpr: core.Jaxpr, outer: str, times: int = 1) -> Iterator[tuple[str, Any, int]]:
    """Module path, output shape and multiplications of each product, also in inner jaxprs."""
    for equation in jaxpr.eqns:
        name = _join(outer, str(equation.source_info.name_stack))
        shape = _shape(equation.outvars[0])
        primitive = equation.primitive.name
        if primitive in ("conv_general_dilated", "dot_general"):
            yield name, shape, times * _multiplications(equation)
            continue
        inner_times = times * equation.params["length"] if primitive == "scan" else times
        for value in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
                for product in _products(inner, name, inner_times):
                    # A layer with a gradient of its own may work on maps as matrices.
                    yield (
                        (product[0], shape, product[2])
                        if primitive == "custom_vjp_call"
                        else product
                    )


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _join(outer: str, inner: str) -> str:
    """Path of modules without the names of classes and methods."""
    parts = [part for part in inner.split("/") if part and not part[0].isupper()]
    return "/".join(filter(None, [outer, *parts]))


def _multiplications(equation: Any) -> int:
    outputs = math.prod(_shape(equation.outvars[0]))
    left, right = (_shape(variable) for variable in equation.invars)
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return outputs * math.prod(left[axis] for axis in contracted)
    _, *kernel_axes = equation.params["dimension_numbers"].rhs_spec
    return outputs * math.prod(right[axis] for axis in kernel_axes)
