"""Pictures of the page: PNG files as data URIs."""

import base64
import io
import math
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

SIDE = 96  # pixels of a picture, about

# From dark to light, so that it is readable without color.
_HEAT = cv2.COLORMAP_VIRIDIS
_OVERLAY = 0.6  # share of the mask's colour; the rest is the image


def data_uri(image: Image.Image) -> str:
    """The picture as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def thumbnail(pixels: np.ndarray) -> Image.Image:
    """An image uint8 [H, W, 3], scaled down if it is large; the page scales up small ones."""
    image = Image.fromarray(pixels)
    return image if max(image.size) <= SIDE else image.resize((SIDE, SIDE), Image.Resampling.BOX)


class ColorRange(NamedTuple):
    """What values the darkest and the lightest color of masks stand for, with two decimals."""

    low: float
    high: float


def color_range(masks: np.ndarray) -> ColorRange:
    """The range of the finite values of some masks, rounded outwards."""
    finite = masks[np.isfinite(masks)]
    if not finite.size:
        return ColorRange(0.0, 1.0)
    low, high = math.floor(100 * float(finite.min())), math.ceil(100 * float(finite.max()))
    return ColorRange(low / 100, max(high, low + 1) / 100)


def color_bar() -> Image.Image:
    """The colors from the lowest to the highest value."""
    return Image.fromarray(heat(np.tile(np.linspace(0, 1, 120), (10, 1))))


def overlay(
    pixels: np.ndarray, mask: np.ndarray, colors: ColorRange, side: int = SIDE
) -> Image.Image:
    """Overlays a mask on its image in gray: dark where it is low, light where it is high.

    Args:
        pixels: uint8 [H, W, 3].
        mask: float [h, w]; what is not finite has the lowest color.
        colors: range of values that the colors stand for.
        side: height and width of the picture.
    """
    gray = Image.fromarray(pixels).convert("L")
    small = max(gray.size) < side
    method = Image.Resampling.NEAREST if small else Image.Resampling.BOX
    ground = np.asarray(gray.resize((side, side), method), np.float32)[..., None]
    level = np.nan_to_num((mask - colors.low) / (colors.high - colors.low), posinf=0, neginf=0)
    smooth = Image.fromarray(level.astype(np.float32)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    mixed = _OVERLAY * heat(np.asarray(smooth)) + (1 - _OVERLAY) * ground
    # 64 colors: a third of the size, without visible difference.
    return Image.fromarray(mixed.round().astype(np.uint8)).quantize(64)


def heat(values: np.ndarray) -> np.ndarray:
    """Colors of values [H, W] from 0 to 1, uint8 [H, W, 3]."""
    place = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(place, _HEAT), cv2.COLOR_BGR2RGB)


def matrix(values: np.ndarray, cell: int) -> Image.Image:
    """Values [K, K] from 0 to 1 as squares from white to black.

    Args:
        values: rows from top to bottom.
        cell: side of a square in pixels.
    """
    gray = np.round(255 * (1 - np.clip(values, 0, 1))).astype(np.uint8)
    return Image.fromarray(np.kron(gray, np.ones((cell, cell), np.uint8)))
