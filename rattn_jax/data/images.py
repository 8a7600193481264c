"""Decodes image files and crops them to uint8 images of one size, on the host.

image = load_crop(example.image, center_box(0.875), size=224)    # uint8 [224, 224, 3]

JPEG files are decoded by simplejpeg (libjpeg-turbo) and resized by OpenCV, which is 1.6 times as
fast as Pillow (`experiments/benchmark_input.py`). Both release the GIL, so threads are enough.
Pillow decodes all other files, and JPEG files that simplejpeg refuses.
"""

import io
import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

# Larger images are refused before they are decoded: a file of a few kB can claim to be 10 GB.
# Pillow's limit, too.
MAX_PIXELS = 2**30 // 12


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


cv2.setNumThreads(1)  # images are decoded on several threads already

ChooseBox = Callable[[int, int], Box]  # from height and width of the image


class BadImageError(ValueError):
    """An image that cannot be decoded, and why."""


def load_crop(
    image: bytes | np.ndarray, choose_box: ChooseBox, size: int, *, fast: bool = False
) -> np.ndarray:
    """Crops a part of an image and resizes it to a square.

    Args:
        image: encoded file, or uint8 [H, W, 3].
        choose_box: chooses the part.
        size: height and width of the result.
        fast: see `decode_image`.

    Returns:
        uint8 [size, size, 3], RGB. A part that has this size already is not resized.

    Raises:
        BadImageError: the file is damaged, no image, or too large.
    """
    if isinstance(image, np.ndarray):
        pixels, box = image, choose_box(*image.shape[:2])
    else:
        height, width = _measure(image)
        box = choose_box(height, width)
        enough = (math.ceil(height * size / box.height), math.ceil(width * size / box.width))
        pixels = decode_image(image, at_least=enough, fast=fast)
        if pixels.shape[:2] != (height, width):  # decoded at a fraction of its size
            box = _scale(box, pixels.shape[0] / height, pixels.shape[1] / width)
    part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    if part.shape[:2] == (size, size):
        return part
    # Linear interpolation skips pixels when it shrinks below one half.
    halves = box.height >= 2 * size and box.width >= 2 * size
    method = cv2.INTER_AREA if halves else cv2.INTER_LINEAR
    resized = cv2.resize(part, (size, size), interpolation=method)
    return np.asarray(resized, np.uint8)


def decode_image(
    data: bytes, at_least: tuple[int, int] = (0, 0), *, fast: bool = False
) -> np.ndarray:
    """Decodes an image file.

    Grey values become three equal channels, transparency is dropped, CMYK and palettes are
    converted. A rotation in the metadata (EXIF) is not applied.

    Args:
        data: JPEG, PNG, WebP, or any other file that Pillow reads.
        at_least: minimum height and width. To save time, a JPEG file that is at least twice as
            large may be decoded at 1/2, 1/4 or 1/8 of its size. (0, 0) decodes at full size.
        fast: decode JPEG files in 5 % less time; colors may differ by one or two levels.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        BadImageError: as above.
    """
    _measure(data)
    if simplejpeg.is_jpeg(data):
        minimum = {"min_height": at_least[0], "min_width": at_least[1]} if at_least[0] else {}
        try:
            return simplejpeg.decode_jpeg(data, "RGB", fast, fast, min_factor=2, **minimum)
        except ValueError:  # damaged, CMYK or unusual: try Pillow
            pass
    try:
        with Image.open(io.BytesIO(data)) as image:
            return to_rgb(image)
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise BadImageError(str(error)) from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """Converts an image of any mode to RGB as `decode_image` does: uint8 [H, W, 3]."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to 8
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if "transparency" in image.info:  # of a palette: Pillow wants this way
        return np.asarray(image.convert("RGBA").convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _measure(data: bytes) -> tuple[int, int]:
    """Reads height and width from the header."""
    try:
        if simplejpeg.is_jpeg(data):
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
        else:
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
    except UnidentifiedImageError:
        kind = "an empty file" if not data else "not an image, or a truncated one"
        raise BadImageError(kind) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImageError(str(error)) from error
    if height * width > MAX_PIXELS:
        raise BadImageError(f"{width}x{height} pixels: at most {MAX_PIXELS} are decoded")
    return height, width


def _scale(box: Box, vertical: float, horizontal: float) -> Box:
    top, left = round(box.top * vertical), round(box.left * horizontal)
    height, width = round(box.height * vertical), round(box.width * horizontal)
    return Box(top, left, max(height, 1), max(width, 1))


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
