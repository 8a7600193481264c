"""Folds batch norm into the convolutions, for predictions.

folded = fold_batch_norm(model, variables, (32, 32, 3))
model.apply(folded, images, train=False)    # what `variables` give, but for rounding
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Var

from rattn_jax.models.layers import FOLDED, BatchNorm, Conv

Path = tuple[str, ...]

_CONV, _NORM = "conv", "norm"  # what a name in the traced program stands for


def fold_batch_norm(
    model: nn.Module, variables: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Variables with which a network predicts the same, with fewer operations.

    In inference a batch norm multiplies by one vector and adds another. Both are computed here,
    once. Where a batch norm alone reads the output of a convolution, the kernel takes the
    multiplication over and the addition remains.

    Args:
        model: network without `scan_modules`, called as `model(images, train=False)`.
        variables: its parameters and batch statistics.
        image_shape: height, width, channels.

    Returns:
        {"params": ..., "folded": ...}, float32. They cannot be trained.
    """
    epsilons, convolutions = _find_norms(model, variables, image_shape)
    params = {path: np.asarray(x) for path, x in flatten_dict(variables["params"]).items()}
    statistics = flatten_dict(variables["batch_stats"])
    folded = {}
    for norm, epsilon in epsilons.items():
        scale, bias = params.pop((*norm, "scale")), params.pop((*norm, "bias"))
        mean, var = (np.asarray(statistics[(*norm, name)]) for name in ("mean", "var"))
        multiplier = scale / np.sqrt(var + np.float32(epsilon))
        folded[(*norm, "shift")] = bias - mean * multiplier
        if convolution := convolutions.get(norm):
            params[(*convolution, "kernel")] = params[(*convolution, "kernel")] * multiplier
        else:
            folded[(*norm, "multiplier")] = multiplier
    return {"params": unflatten_dict(params), FOLDED: unflatten_dict(folded)}


def _find_norms(
    model: nn.Module, variables: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> tuple[dict[Path, float], dict[Path, Path]]:
    """Epsilon of each batch norm; and for those that can be folded, the convolution."""
    epsilons: dict[Path, float] = {}

    def mark(run: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        """Gives names to the outputs of convolutions and to the inputs of batch norms."""
        module, path = context.module, context.module.path
        if isinstance(module, BatchNorm):
            epsilons[path] = module.epsilon
            return run(checkpoint_name(arguments[0], "/".join((_NORM, *path))))
        result = run(*arguments, **keywords)
        if isinstance(module, Conv | nn.Conv) and not module.has_variable("params", "bias"):
            return checkpoint_name(result, "/".join((_CONV, *path)))
        return result

    apply = partial(model.apply, train=False)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(mark):
        program = jax.make_jaxpr(apply)(variables, images).jaxpr
    reads = Counter(x for e in program.eqns for x in e.invars if isinstance(x, Var))
    reads.update(x for x in program.outvars if isinstance(x, Var))
    outputs, convolutions = {}, {}
    for equation in program.eqns:
        if equation.primitive.name != "name":
            continue
        kind, *path = equation.params["name"].split("/")
        if kind == _CONV:
            outputs[equation.outvars[0]] = tuple(path)
        elif kind == _NORM and equation.invars[0] in outputs and reads[equation.invars[0]] == 1:
            convolutions[tuple(path)] = outputs[equation.invars[0]]
    return epsilons, convolutions
