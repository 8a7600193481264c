"""Crops a part of an image, and resizes it to uint8 of one size, on the host.

image = load_crop(example.image, center_box(0.875), size=224)    # uint8 [224, 224, 3]

A JPEG file is decoded at a fraction of its size where that is at least twice what is needed. The
part is then resized as Pillow does it, so that a picture gives the same pixels whatever file it
lies in; training does so nearly, in less time (`experiments/benchmark_input.py` measures the
speed).
"""

import math

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from rattn_jax.data.boxes import Box, ChooseBox
from rattn_jax.data.decoding import (
    decode_image,
    decode_measured,
    decode_upright,
    measure,
    orientation_in,
)
from rattn_jax.data.orientation import AS_STORED

cv2.setNumThreads(1)  # images are decoded on several threads already


def load_crop(
    image: bytes | np.ndarray,
    choose_box: ChooseBox,
    size: int,
    *,
    fast: bool = False,
    exact: bool = True,
    upright: bool = False,
) -> np.ndarray:
    """Crops a part of an image and resizes it to a square.

    Args:
        image: encoded file, or uint8 [H, W, 3].
        choose_box: chooses the part.
        size: height and width of the result.
        fast: decode as `decode_image` does then, and resize most parts in half the time or less.
            Pixels differ by one level in the mean, of single JPEG files by up to 4; positions do
            not.
        exact: resize as Pillow's `resize` with linear interpolation does. False: as before there
            was a choice, where a JPEG may be shifted by half a pixel.
        upright: apply the rotation in the file's metadata (EXIF).

    Returns:
        uint8 [size, size, 3], RGB. A part that has this size already is not resized.

    Raises:
        BadImageError: the file is damaged, no image, or too large.
    """
    if not exact:
        return _load_crop_as_before(image, choose_box, size, fast=fast)
    if isinstance(image, bytes) and not simplejpeg.is_jpeg(image):
        image = decode_upright(image) if upright else decode_image(image)
    rows, columns = image.shape[:2] if isinstance(image, np.ndarray) else measure(image)
    orientation = orientation_in(image) if upright and isinstance(image, bytes) else AS_STORED
    height, width = orientation.stored_size(rows, columns)
    box = orientation.stored_box(choose_box(height, width), height, width)
    if isinstance(image, np.ndarray):
        pixels, eighths = image, 8
    else:
        eighths = _enough_eighths(box, size)
        pixels = decode_measured(image, at_least=_reduced(rows, columns, eighths), fast=fast)
        if pixels.shape[:2] == (rows, columns):  # one that Pillow has decoded
            eighths = 8
    return orientation.upright(_resize(pixels, box, eighths / 8, size, fast))


def _enough_eighths(box: Box, size: int) -> int:
    """The smallest part of a JPEG's size, in eighths, at which a box is twice what is needed.

    Below twice, the mean difference from decoding all of it exceeds 2 levels.
    """
    for eighths in (1, 2, 4):
        if min(box.height, box.width) * eighths >= 2 * size * 8:
            return eighths
    return 8


def _reduced(height: int, width: int, eighths: int) -> tuple[int, int]:
    """The size at which libjpeg decodes: it rounds up, while it scales by exactly so many."""
    return -(-height * eighths // 8), -(-width * eighths // 8)


def _resize(pixels: np.ndarray, box: Box, scale: float, size: int, fast: bool) -> np.ndarray:
    """A box, whose numbers are multiplied by `scale`, resized with anti-aliasing.

    As with Pillow's `box`, pixels around the box count where the filter reaches them, but for what
    `_resize_whole_pixels` does.
    """
    top, left, height, width = (side * scale for side in box)
    if all(float(side).is_integer() for side in (top, left, height, width)):
        whole = pixels[int(top) : int(top + height), int(left) : int(left + width)]
        if (height, width) == (size, size):
            return whole
        if fast and max(height, width) < 4 * size:
            return _resize_whole_pixels(whole, size)
    rows, columns = _reached(top, height, size), _reached(left, width, size)
    top, left = top - rows.start, left - columns.start
    exact = (left, top, left + width, top + height)
    part = Image.fromarray(pixels[rows, columns])
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR, box=exact))


def _reached(first: float, length: float, size: int) -> slice:
    """The pixels that the filter reaches, a triangle as wide as two pixels of the result."""
    reach = max(length / size, 1.0)
    return slice(max(math.floor(first - reach), 0), math.ceil(first + length + reach))


def _resize_whole_pixels(part: np.ndarray, size: int) -> np.ndarray:
    """What Pillow's linear resizing gives, nearly: a blur where it shrinks, then interpolation."""
    shrink = [max(side / size, 1.0) for side in part.shape[:2]]
    if max(shrink) > 1:
        vertical, horizontal = map(_blur, shrink)
        part = cv2.sepFilter2D(part, -1, horizontal, vertical, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def _blur(shrink: float) -> np.ndarray:
    """Weights of a pixel and its neighbors, before interpolation.

    Pillow's filter is a triangle from -shrink to shrink, of variance shrink^2 / 6. Interpolation
    has 1 / 6 of it. The rest is that of a triangle of whole pixels if shrink is whole, and
    otherwise of a mixture of the two nearest.
    """
    whole = int(shrink)
    share = (shrink**2 - whole**2) / (2 * whole + 1)
    distance = np.abs(np.arange(-whole, whole + 1))
    narrow, wide = (np.maximum(side - distance, 0) / side**2 for side in (whole, whole + 1))
    return (1 - share) * narrow + share * wide


def _load_crop_as_before(
    image: bytes | np.ndarray, choose_box: ChooseBox, size: int, *, fast: bool
) -> np.ndarray:
    """`load_crop` for runs that have learned from its pixels: `dataset.exact_pixels=False`."""
    if isinstance(image, np.ndarray):
        pixels, box = image, choose_box(*image.shape[:2])
    else:
        height, width = measure(image)
        box = choose_box(height, width)
        enough = (math.ceil(height * size / box.height), math.ceil(width * size / box.width))
        pixels = decode_measured(image, at_least=enough, fast=fast)
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


def _scale(box: Box, vertical: float, horizontal: float) -> Box:
    top, left = round(box.top * vertical), round(box.left * horizontal)
    height, width = round(box.height * vertical), round(box.width * horizontal)
    return Box(top, left, max(height, 1), max(width, 1))
