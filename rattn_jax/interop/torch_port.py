"""Converts weights of the PyTorch port tengshaofeng/ResidualAttentionNetwork-pytorch.

network = recognize(state)
variables, dropped = convert(state, network.create_model())

A state is the `model.state_dict()` that the port saves, as NumPy arrays by name. Names, shapes
and wiring are those of its files `residual_attention_network.py`, `attention_module.py` and
`basic_layers.py` in `Residual-Attention-Network/model`.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rattn_jax.errors import UsageError
from rattn_jax.models import create_model

State = Mapping[str, np.ndarray]
Path = tuple[str, ...]

# The port's class: this package's name, and the side of its images.
NETWORKS = {
    "ResidualAttentionModel_56": ("attention56", 224),
    "ResidualAttentionModel_92": ("attention92", 224),
    "ResidualAttentionModel_92_32input_update": ("attention92_port_cifar", 32),
}

_UNIT = {f"norm{i}": f"bn{i}" for i in (1, 2, 3)} | {f"conv{i}": f"conv{i}" for i in (1, 2, 3)}
_UNIT |= {"projection": "conv4"}
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}

_OUTSIDE_MODULES = {
    "stem": "conv1.0",
    "stem_norm": "conv1.1",
    "stage1/entry": "residual_block1",
    "stage2/entry": "residual_block2",
    "stage3/entry": "residual_block3",
    "stage4/entry": "residual_block4",
    "stage4/exit1": "residual_block5",
    "stage4/exit2": "residual_block6",
    "norm": "mpool2.0",
    "classifier": "fc",
}
_MODULE = {
    "pre_unit1": "first_residual_blocks",
    "trunk_unit1": "trunk_branches.0",
    "trunk_unit2": "trunk_branches.1",
    "post_unit1": "last_blocks",
}
_MASK_END = {"norm1": "0", "linear1": "2", "norm2": "3", "linear2": "5"}
_CIFAR_MASKS = {  # by the number of poolings
    2: {
        "encoder1_unit1": "down_residual_blocks1",
        "skip1_unit1": "skip1_connection_residual_block",
        "encoder2_unit1": "middle_2r_blocks.0",
        "decoder2_unit1": "middle_2r_blocks.1",
        "decoder1_unit1": "up_residual_blocks1",
    },
    1: {"encoder1_unit1": "middle_2r_blocks.0", "decoder1_unit1": "middle_2r_blocks.1"},
    0: {"local_unit1": "middle_2r_blocks.0", "local_unit2": "middle_2r_blocks.1"},
}


@dataclasses.dataclass(frozen=True)
class PortNetwork:
    """A network of the port.

    Attributes:
        name: its class, one of `NETWORKS`.
        num_classes: number of classes.
        widths: channels of its stages.
    """

    name: str
    num_classes: int
    widths: tuple[int, ...]

    @property
    def model_name(self) -> str:
        """Its name in this package."""
        return NETWORKS[self.name][0]

    @property
    def image_size(self) -> int:
        """Height and width of its images."""
        return NETWORKS[self.name][1]

    @property
    def keywords(self) -> dict[str, Any]:
        """Keywords of `models.create_model`."""
        return {"wiring": "port", "widths": self.widths}

    def create_model(self) -> Any:
        """The network in this package."""
        return create_model(self.model_name, self.num_classes, **self.keywords)


def recognize(state: State) -> PortNetwork:
    """Recognizes the network by names of arrays, its classes and widths by their shapes.

    Raises:
        UsageError: the state belongs to another network.
    """

    def shape(name: str, num_axes: int) -> tuple[int, ...]:
        found = state[name].shape if name in state else None
        if found is None or len(found) != num_axes:
            raise UsageError(
                f"there is no {name} with {num_axes} axes: must be the weights of one of "
                f"{', '.join(NETWORKS)}, as that PyTorch port saves them"
            )
        return found

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in state)

    kernel_size = shape("conv1.0.weight", 4)[-1]
    widths = tuple(shape(f"residual_block{i}.conv3.weight", 4)[0] for i in (1, 2, 3))
    num_classes = shape("fc.weight", 2)[0]
    if has("attention_module0."):
        name = "ResidualAttentionModel_448input"
    elif has("attention_module1.middle_2r_blocks."):
        name = "ResidualAttentionModel_92_32input" + ("_update" if kernel_size == 3 else "")
    else:
        name = "ResidualAttentionModel_" + ("92" if has("attention_module2_2.") else "56")
    if name not in NETWORKS:
        raise UsageError(f"{name} is not supported: must be one of {', '.join(NETWORKS)}")
    return PortNetwork(name, num_classes, widths)


def convert(state: State, model: Any) -> tuple[dict[str, Any], list[str]]:
    """Converts a state to the variables of the model.

    Args:
        state: arrays by name.
        model: the network of that state, see `PortNetwork`.

    Returns:
        `params` and `batch_stats`, of the dtypes of the state; and the names of what was left
        out: `conv4.weight` of units whose shortcut is their input, which the port creates and
        never reads, and `num_batches_tracked`, which inference does not read.

    Raises:
        UsageError: an array is missing, unknown, of another shape, or not of floating point.
    """
    blocks = _blocks(model)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)  # of any size that can be pooled
    wanted = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    names = {path: _name(path[1:], blocks) for path in flatten_dict(wanted)}
    leaves = {
        path: _take(state, names[path], leaf.shape) for path, leaf in flatten_dict(wanted).items()
    }
    used = set(names.values())
    dropped = [name for name in state if name not in used]
    for name in dropped:
        block, _, leaf = name.rpartition(".")
        is_counter = leaf == "num_batches_tracked" and f"{block}.running_var" in used
        is_shortcut = block.endswith(".conv4") and f"{block[:-1]}1.weight" in used
        if not (is_counter or (is_shortcut and leaf == "weight")):
            raise UsageError(
                f"{name} {list(state[name].shape)} is unknown: the network has no such weight; "
                "remove it, if it is not needed"
            )
    return unflatten_dict(leaves), dropped


def _blocks(model: Any) -> dict[str, str]:
    """The port's names of units, and of layers outside units, by the paths of this package."""
    blocks = dict(_OUTSIDE_MODULES)
    stages = zip(model.modules_per_stage, model.mask_poolings, strict=True)
    for stage, (num_modules, poolings) in enumerate(stages, start=1):
        if model.stem == "imagenet":
            mask, end = _numbered_mask(poolings), f"softmax{2 * poolings}_blocks"
        else:
            mask, end = _CIFAR_MASKS[poolings], "conv1_1_blocks"
        mask = mask | {layer: f"{end}.{i}" for layer, i in _MASK_END.items()}
        module = _MODULE | {f"mask/{ours}": theirs for ours, theirs in mask.items()}
        for i in range(1, num_modules + 1):
            name = f"attention_module{stage}" + (f"_{i}" if i > 1 else "")
            blocks |= {
                f"stage{stage}/module{i}/{ours}": f"{name}.{theirs}"
                for ours, theirs in module.items()
            }
    return blocks


def _numbered_mask(poolings: int) -> dict[str, str]:
    """Units of a mask of the networks for ImageNet: numbered along the way down and up."""
    names = {
        f"encoder{poolings}_unit1": f"softmax{poolings}_blocks.0",
        f"decoder{poolings}_unit1": f"softmax{poolings}_blocks.1",
    }
    for level in range(1, poolings):
        names |= {
            f"encoder{level}_unit1": f"softmax{level}_blocks",
            f"skip{level}_unit1": f"skip{level}_connection_residual_block",
            f"decoder{level}_unit1": f"softmax{2 * poolings - level}_blocks",
        }
    return names


def _name(path: Path, blocks: Mapping[str, str]) -> str:
    """The port's name of a variable, without its collection."""
    *layers, leaf = path
    leaf = _LEAVES.get(leaf, leaf)
    if (layer := blocks.get("/".join(layers))) is not None:
        return f"{layer}.{leaf}"
    *unit, layer = layers
    return f"{blocks['/'.join(unit)]}.{_UNIT[layer]}.{leaf}"


def _take(state: State, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array with its axes in the order of this package, in which it has that shape."""
    to_port, from_port = {4: ((3, 2, 0, 1), (2, 3, 1, 0)), 2: ((1, 0), (1, 0))}.get(
        len(shape), ((0,), (0,))
    )
    expected = [shape[axis] for axis in to_port]
    if name not in state:
        raise UsageError(f"{name} {expected} is missing: give the whole state_dict")
    array = state[name]
    if list(array.shape) != expected or not np.issubdtype(array.dtype, np.floating):
        raise UsageError(
            f"{name} is {array.dtype}{list(array.shape)}: must be floating point {expected}"
        )
    return array.transpose(from_port)
