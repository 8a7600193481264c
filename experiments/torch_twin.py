"""The attention networks in idiomatic PyTorch: a baseline of `benchmark`.

    twin = create_twin("attention56_cifar", num_classes=10)
    twin.load_state_dict(state_dict(variables["params"], variables["batch_stats"]))
    logits = twin(torch.from_numpy(images).permute(0, 3, 1, 2))

It uses `torch.nn` and no code of the package, so a process that runs it needs no JAX. It differs
from the package's networks in the running variance, which is the unbiased estimate.
"""

import dataclasses
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def _conv(features_in: int, features: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    padding = kernel_size // 2
    return nn.Conv2d(features_in, features, kernel_size, stride, padding, bias=False)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)


def _interpolate(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


class _Unit(nn.Module):
    """Bottleneck residual unit with pre-activation."""

    def __init__(self, features_in: int, features: int, stride: int = 1) -> None:
        super().__init__()
        width = features // 4
        self.norm1 = nn.BatchNorm2d(features_in)
        self.conv1 = _conv(features_in, width, 1)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, features, 1)
        same = stride == 1 and features_in == features
        self.projection = None if same else _conv(features_in, features, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.norm1(x), inplace=True)
        h = self.conv1(activated)
        h = self.conv2(F.relu(self.norm2(h), inplace=True))
        h = self.conv3(F.relu(self.norm3(h), inplace=True))
        h += x if self.projection is None else self.projection(activated)
        return h


def _units(features: int, count: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict((f"unit{i}", _Unit(features, features)) for i in range(1, count + 1))
    )


class _Mask(nn.Module):
    """Soft mask branch; `encoder[i]`, `decoder[i]` and `skip[i]` are those of level i + 1."""

    def __init__(self, features: int, poolings: int, r: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(_units(features, r) for _ in range(poolings))
        self.decoder = nn.ModuleList(_units(features, r) for _ in range(poolings))
        self.skip = nn.ModuleList(_units(features, 1) for _ in range(poolings - 1))
        self.norm1 = nn.BatchNorm2d(features)
        self.linear1 = _conv(features, features, 1)
        self.norm2 = nn.BatchNorm2d(features)
        self.linear2 = _conv(features, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        encoded = [x]
        for units in self.encoder:
            encoded.append(units(_max_pool(encoded[-1])))
        h = encoded.pop()
        for level in reversed(range(len(self.decoder))):
            above = encoded.pop()
            h = _interpolate(self.decoder[level](h), above.shape[2:])
            if level > 0:
                h = h + self.skip[level - 1](above)
        h = self.linear1(F.relu(self.norm1(h), inplace=True))
        h = self.linear2(F.relu(self.norm2(h), inplace=True))
        return torch.sigmoid(h)


class _AttentionModule(nn.Module):
    def __init__(self, features: int, poolings: int, p: int, t: int, r: int) -> None:
        super().__init__()
        self.pre = _units(features, p)
        self.trunk = _units(features, t)
        self.mask = _Mask(features, poolings, r)
        self.post = _units(features, p)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        return self.post((1 + self.mask(x)) * self.trunk(x))


def _stage(
    features_in: int, features: int, stride: int, modules: Sequence[nn.Module], exit_units: int
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(entry=_Unit(features_in, features, stride))
    layers.update((f"module{i}", module) for i, module in enumerate(modules, start=1))
    layers.update((f"exit{i}", _Unit(features, features)) for i in range(1, exit_units + 1))
    return nn.Sequential(layers)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The attributes of a network of `rattn_jax.create_model`, with the same names.

    Attributes:
        modules_per_stage: attention modules in each stage.
        widths: channels of each stage.
        stem: "cifar" or "imagenet".
        exit_units: units after the modules of each stage.
        final_units: units of twice the last width after all stages.
        p: units before and after the trunk and mask of a module.
        t: units of a trunk.
        r: units of a mask between two poolings.
    """

    modules_per_stage: tuple[int, ...]
    widths: tuple[int, ...]
    stem: str = "cifar"
    exit_units: int = 1
    final_units: int = 0
    p: int = 1
    t: int = 2
    r: int = 1


class TorchTwin(nn.Module):
    """An attention network of `rattn_jax.create_model`, in PyTorch."""

    def __init__(self, num_classes: int, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        imagenet = a.stem == "imagenet"
        features = 64 if imagenet else 16
        self.stem = _conv(3, features, 7, stride=2) if imagenet else _conv(3, features, 3)
        self.stem_norm = nn.BatchNorm2d(features) if imagenet else None
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (width, num_modules) in enumerate(zip(a.widths, a.modules_per_stage, strict=True)):
            poolings = len(a.widths) - i
            modules = [_AttentionModule(width, poolings, a.p, a.t, a.r) for _ in range(num_modules)]
            stride = 1 if i == 0 else 2
            stages[f"stage{i + 1}"] = _stage(features, width, stride, modules, a.exit_units)
            features = width
        if a.final_units:
            name = f"stage{len(a.widths) + 1}"
            stages[name] = _stage(features, 2 * features, 2, [], a.final_units - 1)
            features *= 2
        self.stages = nn.Sequential(stages)
        self.norm = nn.BatchNorm2d(features)
        self.classifier = nn.Linear(features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, num_classes] of images [B, 3, H, W]."""
        x = self.stem(images)
        if self.stem_norm is not None:
            x = _max_pool(F.relu(self.stem_norm(x), inplace=True))
        x = F.relu(self.norm(self.stages(x)), inplace=True)
        return self.classifier(x.mean(dim=(2, 3)))


def _cifar(modules: int, *, p: int = 1, t: int = 2, r: int = 1) -> Architecture:
    return Architecture((modules,) * 3, (64, 128, 256), p=p, t=t, r=r)


def _imagenet(*modules: int) -> Architecture:
    return Architecture(modules, (256, 512, 1024), "imagenet", exit_units=0, final_units=3)


NETWORKS = {
    "attention56_cifar": _cifar(1),
    "attention92_cifar": _cifar(2),
    "attention128_cifar": _cifar(3),
    "attention164_cifar": _cifar(4),
    "attention236_cifar": _cifar(6),
    "attention452_cifar": _cifar(6, p=2, t=4, r=3),
    "attention56": _imagenet(1, 1, 1),
    "attention92": _imagenet(1, 2, 3),
}


def create_twin(name: str, num_classes: int, **keywords: Any) -> TorchTwin:
    """Creates the network called `name`, with parameters in the memory format channels_last.

    Args:
        name: one of `NETWORKS`.
        num_classes: number of classes.
        **keywords: attributes of `Architecture` that replace those of `name`.
    """
    twin = TorchTwin(num_classes, dataclasses.replace(NETWORKS[name], **keywords))
    return twin.to(memory_format=torch.channels_last)


_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def state_dict(params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, Tensor]:
    """The twin's state, or its gradients, from those of the package's network.

    Args:
        params: parameters, or gradients with their names.
        batch_stats: running averages.
    """
    return {
        _torch_name(path): torch.from_numpy(_torch_axes(np.array(leaf)))
        for tree in (params, batch_stats)
        for path, leaf in _leaves(tree)
    }


def _leaves(tree: Mapping[str, Any], outer: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*outer, name))
        else:
            yield (*outer, name), value


def _torch_name(path: tuple[str, ...]) -> str:
    """For example stages.stage1.module1.mask.encoder.0.unit1.conv1.weight."""
    name = ".".join((*path[:-1], _NAMES.get(path[-1], path[-1])))
    name = re.sub(r"^(stage\d)", r"stages.\1", name)
    level = re.compile(r"(encoder|decoder|skip)(\d)")
    name = level.sub(lambda match: f"{match[1]}.{int(match[2]) - 1}", name)
    return name.replace("_unit", ".unit")


def _torch_axes(value: np.ndarray) -> np.ndarray:
    """Kernels [height, width, in, out] and [in, out] with their axes in PyTorch's order."""
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
