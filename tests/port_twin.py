"""Networks of the PyTorch port with its wiring and names, at any width: what the port computes."""

import torch.nn.functional as F  # noqa: N812
from torch import nn


class Unit(nn.Module):
    """The convolution of the shortcut is always there, and used where it has to be."""

    def __init__(self, features_in, features, stride=1):
        super().__init__()
        width = features // 4
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(n) for n in (features_in, width, width))
        self.conv1 = nn.Conv2d(features_in, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.conv3 = nn.Conv2d(width, features, 1, bias=False)
        self.conv4 = nn.Conv2d(features_in, features, 1, stride, bias=False)
        self.projects = stride > 1 or features_in != features

    def forward(self, x):
        active = F.relu(self.bn1(x))
        h = self.conv2(F.relu(self.bn2(self.conv1(active))))
        shortcut = self.conv4(active) if self.projects else x
        return self.conv3(F.relu(self.bn3(h))) + shortcut


class Module(nn.Module):
    """Attention module; units of the mask before each pooling but the last, and on the way up."""

    def __init__(self, features, down, middle, up, end, pools):
        super().__init__()

        def units(count):
            return nn.Sequential(*(Unit(features, features) for _ in range(count)))

        self.first_residual_blocks = Unit(features, features)
        self.trunk_branches = units(2)
        self.last_blocks = Unit(features, features)
        for i, name in enumerate(down, start=1):
            self.add_module(name, Unit(features, features))
            self.add_module(f"skip{i}_connection_residual_block", Unit(features, features))
        self.add_module(middle, units(2))
        for name in up:
            self.add_module(name, Unit(features, features))
        halves = [
            [nn.BatchNorm2d(features), nn.ReLU(), nn.Conv2d(features, features, 1, bias=False)]
            for _ in range(2)
        ]
        self.add_module(end, nn.Sequential(*halves[0], *halves[1], nn.Sigmoid()))
        self.names, self.pools = (down, middle, up, end), pools

    def forward(self, x):
        down, middle, up, end = self.names
        x = self.first_residual_blocks(x)
        trunk = self.trunk_branches(x)
        maps, h = [], x
        for name in down:
            h = getattr(self, name)(F.max_pool2d(h, 3, 2, padding=1))
            maps.append(h)
        if self.pools:
            h = F.max_pool2d(h, 3, 2, padding=1)
        h = getattr(self, middle)(h)
        for i in reversed(range(len(down))):
            h = F.interpolate(h, maps[i].shape[2:], mode="bilinear", align_corners=True)
            h = h + maps[i] + getattr(self, f"skip{i + 1}_connection_residual_block")(maps[i])
            h = getattr(self, up[len(down) - 1 - i])(h)
        if self.pools:
            h = F.interpolate(h, x.shape[2:], mode="bilinear", align_corners=True) + trunk
        return self.last_blocks((1 + getattr(self, end)(h)) * trunk)


def imagenet_module(features, stage):
    down = [f"softmax{i}_blocks" for i in range(1, 4 - stage)]
    n = len(down) + 1
    up = [f"softmax{i}_blocks" for i in range(n + 1, 2 * n)]
    return Module(features, down, f"softmax{n}_blocks", up, f"softmax{2 * n}_blocks", True)


def cifar_module(features, stage):
    down, up = (["down_residual_blocks1"], ["up_residual_blocks1"]) if stage == 1 else ([], [])
    return Module(features, down, "middle_2r_blocks", up, "conv1_1_blocks", stage < 3)


class Network(nn.Module):
    def __init__(self, cifar, modules_per_stage, widths, num_classes):
        super().__init__()
        stem, kernel, stride, padding = (32, 3, 1, 1) if cifar else (64, 7, 2, 3)
        conv = nn.Conv2d(3, stem, kernel, stride, padding, bias=False)
        self.conv1 = nn.Sequential(conv, nn.BatchNorm2d(stem), nn.ReLU())
        self.cifar, self.order, features = cifar, [], stem
        for stage, (width, count) in enumerate(zip(widths, modules_per_stage, strict=True), 1):
            stride = 1 if stage == 1 else 2
            self._append(f"residual_block{stage}", Unit(features, width, stride))
            for i in range(1, count + 1):
                name = f"attention_module{stage}" + ("" if i == 1 else f"_{i}")
                self._append(name, (cifar_module if cifar else imagenet_module)(width, stage))
            features = width
        last = 2 * features
        self._append("residual_block4", Unit(features, last, 1 if cifar else 2))
        self._append("residual_block5", Unit(last, last))
        self._append("residual_block6", Unit(last, last))
        self.mpool2 = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU())
        self.fc = nn.Linear(last, num_classes)

    def _append(self, name, module):
        self.add_module(name, module)
        self.order.append(module)

    def forward(self, x):
        x = self.conv1(x)
        if not self.cifar:
            x = F.max_pool2d(x, 3, 2, padding=1)
        for module in self.order:
            x = module(x)
        return self.fc(self.mpool2(x).mean(dim=(2, 3)))
