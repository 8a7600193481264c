"""One picture of the masks over some images, for TensorBoard and other loggers."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rattn_jax.report.mask_health import Observation
from rattn_jax.report.pictures import color_range, overlay

_SIDE, _GAP, _LABEL = 64, 2, 132  # pixels: of an image, between two, of the text beside a row
_FONT = ImageFont.load_default(12)


def draw_masks(images: np.ndarray, seen: Observation) -> Image.Image:
    """Draws a row of images, and below it a row of overlays for each module.

    The text beside a row says which values its darkest and its lightest color stand for.

    Args:
        images: uint8 [n, H, W, 3].
        seen: statistics with the masks of these images.
    """
    step = _SIDE + _GAP
    size = (_LABEL + len(images) * step, (1 + len(seen.masks)) * step)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    pen.text((4, 4), "images", "black", _FONT)
    for i, image in enumerate(images):
        small = Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BOX)
        picture.paste(small, (_LABEL + i * step, 0))
    for row, (name, masks) in enumerate(seen.masks.items(), start=1):
        colors = color_range(masks)
        text = f"{name}\ndark {colors.low:.2f}\nlight {colors.high:.2f}"
        pen.multiline_text((4, row * step + 4), text, "black", _FONT)
        for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
            tile = overlay(image, mask, colors, _SIDE).convert("RGB")
            picture.paste(tile, (_LABEL + i * step, row * step))
    return picture
