"""Decodes image files to uint8 [H, W, 3], and reads their headers.

JPEG files are decoded by simplejpeg (libjpeg-turbo), if wanted at a fraction of their size; Pillow
decodes all other files, and JPEG files that simplejpeg refuses. Both release the GIL, so threads
are enough.
"""

import io
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from rattn_jax.data.orientation import AS_STORED, Orientation, orientation_of

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
# Tag of TIFF files, and its value where 0 is white.
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0

# Larger images are refused before they are decoded: a file of a few kB can claim to be 10 GB.
# Pillow's limit, too.
MAX_PIXELS = 2**30 // 12


class BadImageError(ValueError):
    """An image that cannot be decoded, and why."""


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
    measure(data)
    return decode_measured(data, at_least, fast=fast)


def decode_measured(
    data: bytes, at_least: tuple[int, int] = (0, 0), *, fast: bool = False
) -> np.ndarray:
    """`decode_image` of a file that `measure` has not refused."""
    if simplejpeg.is_jpeg(data):
        minimum = {"min_height": at_least[0], "min_width": at_least[1]} if at_least[0] else {}
        try:
            return simplejpeg.decode_jpeg(data, "RGB", fast, fast, min_factor=2, **minimum)
        except ValueError:  # damaged or unusual: try Pillow
            pass
    return _decode_by_pillow(data)[0]


def _decode_by_pillow(data: bytes) -> tuple[np.ndarray, Orientation]:
    """Pixels and orientation in one reading: of a PNG file the latter may stand at the end."""
    try:
        with _open(data) as image:
            return to_rgb(image), _orientation_of(image)
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
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = 65_535 - grey  # Pillow does so for 1 and 8 bits alone
        return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if "transparency" in image.info:  # of a palette: Pillow wants this way
        return np.asarray(image.convert("RGBA").convert("RGB"))
    return np.asarray(image.convert("RGB"))


def to_upright_rgb(image: Image.Image) -> np.ndarray:
    """`to_rgb` with the rotation in the image's metadata (EXIF) applied."""
    return orientation_of(image).upright(to_rgb(image))


def measure(data: bytes) -> tuple[int, int]:
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
    height, width = measure(data)
    try:
        with _open(data) as image:
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            return Header(kind, image.mode, height, width, _orientation_of(image) == AS_STORED)
    except Exception as error:  # a damaged file can raise anything
        raise BadImageError(str(error) or type(error).__name__) from error


def decode_upright(data: bytes) -> np.ndarray:
    """`decode_image` with the rotation in the metadata (EXIF) applied."""
    measure(data)
    if simplejpeg.is_jpeg(data):
        pixels, orientation = decode_measured(data), orientation_in(data)
    else:
        pixels, orientation = _decode_by_pillow(data)
    return orientation.upright(pixels)


def orientation_in(data: bytes) -> Orientation:
    """Reads the orientation from the metadata of a file; of a PNG file it may decode all of it."""
    try:
        with _open(data) as image:
            return _orientation_of(image)
    except Exception:  # a file that Pillow does not know says nothing
        return AS_STORED


def _orientation_of(image: Image.Image) -> Orientation:
    try:
        return orientation_of(image)
    except Exception:  # damaged metadata, which raises many kinds of errors, say nothing
        return AS_STORED
