"""The stages of a network as a forward pass sees them (paper, figure 4).

intermediates, outputs = apply_and_watch(model, variables, inputs)
outputs["stage1"]                     # [B, H, W, C]
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from rattn_jax.models.residual_attention import Stage

_UNIT = re.compile(r"(stage\d+)_unit(\d+)")  # of networks whose stages are no modules


def apply_and_watch(
    model: nn.Module, variables: Any, inputs: jax.Array
) -> tuple[Mapping[str, Any], dict[str, jax.Array]]:
    """Evaluates a network: its intermediates, and the output of each stage.

    Args:
        model: an attention network, or one of residual units.
        variables: its parameters and statistics.
        inputs: normalised images, float32 [B, H, W, C].

    Returns:
        The collection "intermediates", for `read_maps`; and outputs [B, H, W, C] by the names of
        the stages, none if the network has none.
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
    """The module whose output is that of a stage, by stage: the stage, or its last unit."""
    units = sorted(
        (match[1], int(match[2]), match[0]) for name in names if (match := _UNIT.fullmatch(name))
    )
    last = {stage: name for stage, _, name in units}
    return {name: name for name in names if name not in {unit[2] for unit in units}} | last
