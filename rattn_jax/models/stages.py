"""Reads the outputs of the stages of a network (paper, figure 4).

intermediates, outputs = apply_and_watch(model, variables, inputs)
outputs["stage1"]                     # [B, H, W, C]
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from rattn_jax.models.residual_attention import Stage

_UNIT = re.compile(r"(stage\d+)_unit(\d+)")  # in networks whose stages are not modules


def apply_and_watch(
    model: nn.Module, variables: Any, inputs: jax.Array
) -> tuple[Mapping[str, Any], dict[str, jax.Array]]:
    """Runs a network, and returns its intermediates and the output of each stage.

    Args:
        model: an attention network, or one of residual units.
        variables: its parameters and statistics.
        inputs: normalised images, float32 [B, H, W, C].

    Returns:
        The collection "intermediates", for `read_maps`; and the outputs [B, H, W, C] by name of
        the stage, empty if the network has no stages.
    """

    def is_watched(module: nn.Module, method: str) -> bool:
        unit = _UNIT.fullmatch(module.name or "")
        return method == "__call__" and (isinstance(module, Stage) or unit is not None)

    _, seen = model.apply(
        variables,
        inputs,
        train=False,
        mutable=["intermediates"],
        capture_intermediates=is_watched,
    )
    intermediates = seen.get("intermediates", {})
    last = _last_modules(list(intermediates))
    return intermediates, {
        stage: intermediates[name]["__call__"][0] for stage, name in last.items()
    }


def _last_modules(names: Sequence[str]) -> dict[str, str]:
    """The module with the output of each stage: the stage itself, or its last unit."""
    units = sorted(
        (match[1], int(match[2]), match[0]) for name in names if (match := _UNIT.fullmatch(name))
    )
    last = {stage: name for stage, _, name in units}
    return {name: name for name in names if name not in {unit[2] for unit in units}} | last
