"""Pictures of the page: PNG files as data URIs."""

import base64
import io

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


def overlay(pixels: np.ndarray, mask: np.ndarray) -> Image.Image:
    """Overlays a mask on its image in gray: dark where it is lowest, light where it is highest.

    Args:
        pixels: uint8 [H, W, 3].
        mask: float [h, w].
    """
    gray = Image.fromarray(pixels).convert("L")
    small = max(gray.size) < SIDE
    method = Image.Resampling.NEAREST if small else Image.Resampling.BOX
    ground = np.asarray(gray.resize((SIDE, SIDE), method), np.float32)[..., None]
    low, high = float(mask.min()), float(mask.max())
    # A nearly constant mask is shown as constant, because its differences are rounding errors.
    level = (mask - low) / (high - low) if high - low >= 0.005 else np.full_like(mask, 0.5)
    smooth = Image.fromarray(level.astype(np.float32)).resize(
        (SIDE, SIDE), Image.Resampling.BILINEAR
    )
    place = np.round(255 * np.clip(np.asarray(smooth), 0, 1)).astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(place, _HEAT), cv2.COLOR_BGR2RGB)
    mixed = _OVERLAY * heat + (1 - _OVERLAY) * ground
    # 64 colors: a third of the size, without visible difference.
    return Image.fromarray(mixed.round().astype(np.uint8)).quantize(64)


def matrix(values: np.ndarray, cell: int) -> Image.Image:
    """Values [K, K] from 0 to 1 as squares from white to black.

    Args:
        values: rows from top to bottom.
        cell: side of a square in pixels.
    """
    gray = np.round(255 * (1 - np.clip(values, 0, 1))).astype(np.uint8)
    return Image.fromarray(np.kron(gray, np.ones((cell, cell), np.uint8)))
