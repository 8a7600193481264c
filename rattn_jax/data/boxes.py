"""Parts of images: the center crop, and the crop of scale and aspect ratio augmentation.

choose = center_box(0.875)
choose(480, 640)    # Box(top=30, left=110, height=420, width=420)
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


ChooseBox = Callable[[int, int], Box]  # from height and width of the image


def center_box(fraction: float) -> ChooseBox:
    """Center crop: a square whose side is `fraction` of the shorter side of the image.

    Resized to S, this equals resizing the shorter side to S / fraction and cropping the center:
    0.875 is the usual 224 of 256.
    """

    def choose(height: int, width: int) -> Box:
        side = max(round(min(height, width) * fraction), 1)
        return Box((height - side) // 2, (width - side) // 2, side, side)

    return choose


def random_box(draws: np.ndarray, area: tuple[float, float]) -> ChooseBox:
    """Scale and aspect ratio augmentation (Szegedy et al. 2015, section 6).

    Args:
        draws: uniform random numbers from [0, 1), float64 [tries, 4].
        area: least and largest share of the image's area; the paper cited has 0.08 and 1. The
            aspect ratio is from 3/4 to 4/3, uniform in its logarithm.

    Returns:
        Function that chooses a box in the image: the first of the tries that fits, otherwise the
        largest one in the middle with a ratio in that range.
    """
    low, high = area

    def choose(height: int, width: int) -> Box:
        for share, skew, down, right in draws.tolist():
            target = height * width * (low + (high - low) * share)
            root = (4 / 3) ** (skew - 0.5)  # of the ratio
            w, h = round(math.sqrt(target) * root), round(math.sqrt(target) / root)
            if 0 < h <= height and 0 < w <= width:
                return Box(int(down * (height - h + 1)), int(right * (width - w + 1)), h, w)
        h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
        return Box((height - h) // 2, (width - w) // 2, max(h, 1), max(w, 1))

    return choose
