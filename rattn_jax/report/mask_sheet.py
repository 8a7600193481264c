"""Draws sheets with the maps of the attention modules for an image (as figure 1 of the paper).

sheet = draw_sheet(image, ["dog.jpg", "dog 93.1 %"], maps, channels={"stage1/module1": [3, 7]})
sheet.save("sheet.png")

There is a column for each stage. Each module has a row for the mean over all channels and one for
each chosen channel: features before attention, mask, mask over the image, features after.
"""

import itertools
import re
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rattn_jax.models.attention import ModuleMaps

_MASKS, _FEATURES = cv2.COLORMAP_VIRIDIS, cv2.COLORMAP_INFERNO
_COLUMNS = ("before (trunk)", "mask", "over the image", "after (fused)")
_SMALL, _LARGE = 128, 160  # sides of a panel, for images of less and of more pixels
_GAP, _LABEL, _CAPTION, _HEADING = 6, 66, 18, 42  # pixels
_MARGIN, _BETWEEN = 18, 30  # around the sheet, between stages
_LEAST_HEAD = 124
_INK, _GREY = (20, 20, 20), (95, 95, 95)
_DIMMED = 0.15  # brightness where the mask is lowest
_LEAST_SPAN = 0.2  # of a mask that dims so far: one that hardly varies hardly dims


_TITLE, _HEAD, _TEXT = (ImageFont.load_default(size) for size in (21, 15, 12))


def strongest_channels(maps: ModuleMaps, count: int) -> list[int]:
    """Channels with the largest mean response |mask * trunk|.

    Args:
        maps: maps of one image, [H, W, C].
        count: number of channels.
    """
    response = np.mean(np.abs(np.asarray(maps.mask) * np.asarray(maps.trunk)), axis=(0, 1))
    return np.argsort(-response, kind="stable")[:count].tolist()


def draw_sheet(
    image: np.ndarray,
    title: Sequence[str],
    maps: Mapping[str, ModuleMaps],
    channels: Mapping[str, Sequence[int]],
    *,
    lowest: float = 0.0,
) -> Image.Image:
    """Draws the sheet of an image.

    Args:
        image: the input of the network, uint8 [S, S, 3].
        title: lines of text, the first in large letters.
        maps: the maps of each module, [H, W, C], by name ("stage1/module1"), in order.
        channels: channels to draw, by module.
        lowest: mask value with the lowest color; the highest is 1.
    """
    stages: dict[str, list[str]] = {}
    for name in maps:
        stages.setdefault(name.split("/")[0], []).append(name)
    side = _panel_side(image.shape[0])
    row = side + _CAPTION + _GAP
    heights = [  # of the modules beside each other
        max(_HEADING + row * (1 + len(channels[name])) + _BETWEEN for name in names if name)
        for names in itertools.zip_longest(*stages.values())
    ]
    block = _LABEL + len(_COLUMNS) * (side + _GAP)
    width = 2 * _MARGIN + len(stages) * (block + _BETWEEN) - _BETWEEN
    head = _MARGIN + max(side, _LEAST_HEAD) + _BETWEEN
    sheet = _Sheet(Image.new("RGB", (width, head + sum(heights)), "white"), image, side, lowest)
    sheet.draw_head(title)
    for column, names in enumerate(stages.values()):
        for i, name in enumerate(names):
            corner = (_MARGIN + column * (block + _BETWEEN), head + sum(heights[:i]))
            sheet.draw_module(corner, name, maps[name], channels[name])
    return sheet.picture


def _panel_side(size: int) -> int:
    """Side of a panel, a multiple of the sides of small images."""
    return size * max(1, round(_SMALL / size)) if size <= _LARGE else _LARGE


class _Sheet:
    """A sheet that is being drawn."""

    def __init__(self, picture: Image.Image, image: np.ndarray, side: int, lowest: float) -> None:
        self.picture, self._pen = picture, ImageDraw.Draw(picture)
        self._image, self._side, self._lowest = image, side, lowest

    def draw_head(self, title: Sequence[str]) -> None:
        self.picture.paste(_resize(self._image, self._side), (_MARGIN, _MARGIN))
        left, y = _MARGIN + self._side + 16, _MARGIN - 4
        for i, line in enumerate(title):
            font = _HEAD if i else _TITLE
            space, line = self.picture.width - _MARGIN - left, line.replace("\n", "\\n")
            while len(line) > 1 and self._pen.textlength(line, font) > space:
                line = f"{line.rstrip('…')[:-1]}…"
            self._pen.text((left, y), line, _INK, font)
            y += 20 if i else 29
        y += 6
        for colours, low, high, meaning in (
            (_MASKS, f"{self._lowest:g}", "1", "mask; the image is brightest where it is highest"),
            (_FEATURES, "least", "most", "features; before and after have one scale in each row"),
        ):
            bar = Image.fromarray(_colour(np.tile(np.linspace(0, 1, 160), (11, 1)), colours))
            self.picture.paste(bar, (left + 34, y + 3))
            self._pen.text((left, y), low, _GREY, _TEXT)
            self._pen.text((left + 200, y), f"{high}   {meaning}", _GREY, _TEXT)
            y += 19

    def draw_module(
        self, corner: tuple[int, int], name: str, maps: ModuleMaps, channels: Sequence[int]
    ) -> None:
        mask, trunk, fused = (np.asarray(x, np.float32) for x in maps)
        height, width, count = mask.shape
        left, top = corner
        words = re.sub(r"(\d+)", r" \1", name.replace("/", ", "))
        heading = f"{words}: {height}x{width}, {count} channels"
        self._pen.text((left, top), heading, _INK, _HEAD)
        for i, words in enumerate(_COLUMNS):
            x = left + _LABEL + i * (self._side + _GAP)
            self._pen.text((x, top + 23), words, _GREY, _TEXT)
        # Absolute values, because features of both signs would cancel.
        mean = (mask.mean(2), np.abs(trunk).mean(2), np.abs(fused).mean(2))
        rows: list[tuple[str, tuple[np.ndarray, ...]]] = [("mean of\nchannels", mean)]
        rows += [(f"channel\n{c}", (mask[..., c], trunk[..., c], fused[..., c])) for c in channels]
        for i, (label, row) in enumerate(rows):
            y = top + _HEADING + i * (self._side + _CAPTION + _GAP)
            self._pen.text((left, y), label, _INK, _TEXT)
            self._draw_row((left + _LABEL, y), *row)

    def _draw_row(
        self, corner: tuple[int, int], mask: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> None:
        side, least = self._side, min(before.min(), after.min())
        span = max(before.max(), after.max()) - least or 1
        features = [_resize(_colour((v - least) / span, _FEATURES), side) for v in (before, after)]
        weights = _resize(_colour((mask - self._lowest) / (1 - self._lowest), _MASKS), side)
        panels = (features[0], weights, _spotlight(self._image, mask, side), features[1])
        x, y = corner
        for panel, values in zip(panels, (before, mask, None, after), strict=True):
            self.picture.paste(panel, (x, y))
            if values is not None:
                form = ".2f" if values is mask else ".3g"
                caption = f"{values.min():{form}} to {values.max():{form}}"
                self._pen.text((x, y + side + 2), caption, _GREY, _TEXT)
            x += side + _GAP


def _colour(values: np.ndarray, colours: int) -> np.ndarray:
    """Values [H, W] from 0 to 1 as uint8 [H, W, 3]."""
    grey = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(grey, colours)[..., ::-1])  # OpenCV has BGR


def _resize(image: np.ndarray, side: int) -> Image.Image:
    grows = side >= image.shape[0]
    method = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize((side, side), method)


def _spotlight(image: np.ndarray, mask: np.ndarray, side: int) -> Image.Image:
    """The image, darkened where the mask, float32 [H, W], is low."""
    highest = mask.max()
    shade = (highest - mask) / max(highest - mask.min(), _LEAST_SPAN)
    smooth = Image.fromarray(1 - shade).resize((side, side), Image.Resampling.BICUBIC)
    light = _DIMMED + (1 - _DIMMED) * np.clip(np.asarray(smooth), 0, 1)
    pixels = np.asarray(_resize(image, side), np.float32) * light[..., None]
    return Image.fromarray(np.round(pixels).astype(np.uint8))
