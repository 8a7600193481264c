"""Decodes image files and crops them to uint8 images of one size, on the host.

image = load_crop(example.image, center_box(0.875), size=224)    # uint8 [224, 224, 3]

JPEG files are decoded by simplejpeg (libjpeg-turbo), at a fraction of their size where that is at
least twice what is needed; Pillow decodes all other files, and JPEG files that simplejpeg refuses.
The part is then resized as Pillow does it, so that a picture gives the same pixels whatever file it
lies in (`experiments/benchmark_input.py` measures the speed). Both release the GIL, so threads are
enough.
"""

import io
import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

# What is decoded, by Pillow's names, and its usual suffixes: no other decoder sees a file.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
# Formats whose images of Pillow's mode "I" have 16 bits.
_OF_16_BITS = ("PNG", "PPM")

# Larger images are refused before they are decoded: a file of a few kB can claim to be 10 GB.
# Pillow's limit, too.
MAX_PIXELS = 2**30 // 12

_EXIF_ORIENTATION = 0x0112


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


cv2.setNumThreads(1)  # images are decoded on several threads already

ChooseBox = Callable[[int, int], Box]  # from height and width of the image


class _Orientation(NamedTuple):
    """How a stored image becomes upright: transposed first, then its rows and columns reversed."""

    transpose: bool = False
    reverse_rows: bool = False
    reverse_columns: bool = False

    def stored_size(self, height: int, width: int) -> tuple[int, int]:
        """The stored image's size from the upright one's, or the other way round."""
        return (width, height) if self.transpose else (height, width)

    def stored_box(self, box: Box, height: int, width: int) -> Box:
        """Where a part of the upright image, of this size, is stored."""
        top = height - box.top - box.height if self.reverse_rows else box.top
        left = width - box.left - box.width if self.reverse_columns else box.left
        if self.transpose:
            return Box(left, top, box.width, box.height)
        return Box(top, left, box.height, box.width)

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """The upright image [H, W, 3]."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        pixels = pixels[:: -1 if self.reverse_rows else 1, :: -1 if self.reverse_columns else 1]
        return np.ascontiguousarray(pixels)


_AS_STORED = _Orientation()
# The values of EXIF's tag "Orientation" (CIPA DC-008, 4.6.4).
_ORIENTATIONS = {
    2: _Orientation(False, False, True),
    3: _Orientation(False, True, True),
    4: _Orientation(False, True, False),
    5: _Orientation(True, False, False),
    6: _Orientation(True, False, True),
    7: _Orientation(True, True, True),
    8: _Orientation(True, True, False),
}


class BadImageError(ValueError):
    """An image that cannot be decoded, and why."""


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
        fast: see `decode_image`.
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
    rows, columns = image.shape[:2] if isinstance(image, np.ndarray) else _measure(image)
    orientation = _orientation(image) if upright and isinstance(image, bytes) else _AS_STORED
    height, width = orientation.stored_size(rows, columns)
    box = orientation.stored_box(choose_box(height, width), height, width)
    if isinstance(image, np.ndarray):
        pixels, eighths = image, 8
    else:
        eighths = _enough_eighths(box, size)
        pixels = decode_image(image, at_least=_reduced(rows, columns, eighths), fast=fast)
        if pixels.shape[:2] == (rows, columns):  # no JPEG, or one that Pillow has decoded
            eighths = 8
    return orientation.upright(_resize(pixels, box, eighths / 8, size))


def _orientation(data: bytes) -> _Orientation:
    """Reads the orientation from the metadata of a file."""
    try:
        with _open(data) as image:
            return _ORIENTATIONS.get(image.getexif().get(_EXIF_ORIENTATION, 1), _AS_STORED)
    except Exception:  # damaged metadata, which raises many kinds of errors, say nothing
        return _AS_STORED


class Header(NamedTuple):
    """What the header of an image file says.

    Attributes:
        kind: a key of `FORMATS`.
        mode: Pillow's mode, such as "RGB" or "CMYK".
        height: height in pixels, as stored.
        width: width in pixels, as stored.
        is_upright: whether the metadata (EXIF) asks for no rotation.
    """

    kind: str
    mode: str
    height: int
    width: int
    is_upright: bool


def read_header(data: bytes) -> Header:
    """Reads the header of an image file.

    Raises:
        BadImageError: the file is damaged, no image, or too large.
    """
    height, width = _measure(data)
    try:
        with _open(data) as image:
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            return Header(kind, image.mode, height, width, _orientation(data) == _AS_STORED)
    except Exception as error:  # a damaged file can raise anything
        raise BadImageError(str(error) or type(error).__name__) from error


def decode_upright(data: bytes) -> np.ndarray:
    """`decode_image` with the rotation in the metadata (EXIF) applied."""
    return _orientation(data).upright(decode_image(data))


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


def _resize(pixels: np.ndarray, box: Box, scale: float, size: int) -> np.ndarray:
    """A box, whose numbers are multiplied by `scale`, resized with Pillow's anti-aliasing."""
    top, left, height, width = (side * scale for side in box)
    first_row, first_column = math.floor(top), math.floor(left)
    part = pixels[first_row : math.ceil(top + height), first_column : math.ceil(left + width)]
    if part.shape[:2] == (size, size) == (height, width):
        return part
    top, left = top - first_row, left - first_column
    exact = (left, top, left + width, top + height)
    linear = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(part).resize((size, size), linear, box=exact))


def _load_crop_as_before(
    image: bytes | np.ndarray, choose_box: ChooseBox, size: int, *, fast: bool
) -> np.ndarray:
    """`load_crop` for runs that have learned from its pixels: `dataset.exact_pixels=False`."""
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

    Grey values become three equal channels, of 16 bits the upper 8 are taken, transparency is
    dropped, CMYK and palettes are converted, and of an animation the first frame is taken. A
    rotation in the metadata (EXIF) is not applied: see `load_crop`.

    Args:
        data: a file of one of the `FORMATS`.
        at_least: minimum height and width. To save time, a JPEG file that is at least twice as
            large may be decoded at 1/2, 1/4 or 1/8 of its size. (0, 0) decodes at full size.
        fast: decode JPEG files in 5 % less time, as training does; colors may differ by some
            levels, positions do not.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        BadImageError: as above, or see `to_rgb`.
    """
    _measure(data)
    if simplejpeg.is_jpeg(data):
        minimum = {"min_height": at_least[0], "min_width": at_least[1]} if at_least[0] else {}
        try:
            return simplejpeg.decode_jpeg(data, "RGB", fast, fast, min_factor=2, **minimum)
        except ValueError:  # damaged or unusual: try Pillow
            pass
    try:
        with _open(data) as image:
            return to_rgb(image)
    except BadImageError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise BadImageError(str(error) or type(error).__name__) from error


def _open(data: bytes) -> Image.Image:
    """Reads the header of a file."""
    return Image.open(io.BytesIO(data), formats=tuple(FORMATS))


def to_rgb(image: Image.Image) -> np.ndarray:
    """Converts an image of any mode to RGB as `decode_image` does: uint8 [H, W, 3].

    Raises:
        BadImageError: its numbers are floats, have 32 bits, or use the lower 8 of 16 alone.
    """
    is_16_bit = image.mode == "I" and image.format in _OF_16_BITS
    if image.mode in ("I", "F") and not is_16_bit:
        kind = "floats" if image.mode == "F" else "32-bit numbers"
        raise BadImageError(f"its pixels are {kind}, of unknown range: scale them to 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to 8
        grey = np.asarray(image)
        if 0 < grey.max() < 256:
            raise BadImageError("its 16 bits hold 8, and would be black: scale or store them so")
        return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if "transparency" in image.info:  # of a palette: Pillow wants this way
        return np.asarray(image.convert("RGBA").convert("RGB"))
    return np.asarray(image.convert("RGB"))


def to_upright_rgb(image: Image.Image) -> np.ndarray:
    """`to_rgb` with the rotation in the image's metadata (EXIF) applied."""
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
    return _ORIENTATIONS.get(value, _AS_STORED).upright(to_rgb(image))


def _measure(data: bytes) -> tuple[int, int]:
    """Reads height and width from the header."""
    try:
        if simplejpeg.is_jpeg(data):
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
        else:
            with _open(data) as image:
                width, height = image.size
    except UnidentifiedImageError:
        kind = "not an image of a known format, or a truncated one" if data else "an empty file"
        raise BadImageError(kind) from None
    except Exception as error:  # a damaged file can raise anything
        raise BadImageError(str(error) or type(error).__name__) from error
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
