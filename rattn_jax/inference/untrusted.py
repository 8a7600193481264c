"""Checks of image files that come from strangers, before anything of them is decoded.

check_header(data)       # raises UnknownFormatError or TooLargeError
"""

import io
import re

from PIL import Image, UnidentifiedImageError

from rattn_jax.data.decoding import BadImageError
from rattn_jax.inference.tiff_parts import read_parts

# Pillow's decoders with the shortest record of vulnerabilities; no other sees such a file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_BYTES = 10_000_000
MAX_PIXELS, MAX_SIDE = 25_000_000, 16_384
# Ten times those of ordinary progressive files, and libtiff's limit, too. An empty scan takes 50
# bytes and, for 25 million pixels, 10 ms: a file of 10 MB could have half an hour of them.
MAX_SCANS = 100
# Strips or tiles of a TIFF file; each takes 0.1 ms at least, whatever is in it.
MAX_PARTS = 20_000
# Tiles at the edges of an image reach beyond it.
_MAX_PIXELS_OF_PARTS = 2 * MAX_PIXELS
# Of 8 and 4 bits in BMP files. Pillow decodes them in Python: 7 kB can take seconds, in which no
# other thread gets on.
_RUN_LENGTHS = (1, 2)
# How a scan of one to four components begins, with its length. Compressed pixels never look like
# this, and other bytes of a file, such as those of an appended video, hardly ever.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")


class UnknownFormatError(BadImageError):
    """A file of none of the `FORMATS`, or a BMP file with run-length encoding."""


class TooLargeError(BadImageError):
    """More bytes, pixels, scans or parts than are taken."""


def check_header(data: bytes) -> None:
    """Checks format and size of an encoded image.

    Raises:
        UnknownFormatError, TooLargeError: see there.
        BadImageError: the header is damaged.
    """
    try:
        if data.startswith((b"II", b"MM")):
            _check_parts(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            is_jpeg = image.format in ("JPEG", "MPO")
            is_slow = image.format == "BMP" and image.info.get("compression") in _RUN_LENGTHS
    except UnidentifiedImageError:
        raise UnknownFormatError(f"must be {', '.join(FORMATS)}, and not truncated") from None
    except Image.DecompressionBombError:
        raise TooLargeError(f"has more than {MAX_PIXELS:,} pixels") from None
    except TooLargeError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise BadImageError("has a damaged header") from error
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise TooLargeError(
            f"has {width}x{height} pixels: must be at most {MAX_PIXELS:,}, a side {MAX_SIDE:,}"
        )
    if is_slow:
        raise UnknownFormatError(
            "is a BMP file with run-length encoding: save it without, or as PNG"
        )
    num_scans = sum(1 for _ in _SCAN.finditer(data)) if is_jpeg else 0
    if num_scans > MAX_SCANS:
        raise TooLargeError(f"has {num_scans:,} scans: must be at most {MAX_SCANS}; save it anew")


def _check_parts(data: bytes) -> None:
    """Checks the strips or tiles of a TIFF file, before Pillow makes a list of them."""
    parts = read_parts(data)
    if parts.number > MAX_PARTS:
        raise TooLargeError(
            f"has {parts.number:,} strips or tiles: must be at most {MAX_PARTS:,}; save it with "
            "larger ones"
        )
    if parts.largest > MAX_PIXELS or parts.decoded > _MAX_PIXELS_OF_PARTS:
        raise TooLargeError(
            f"has strips or tiles of {parts.largest:,} pixels, {parts.decoded:,} in all: must be "
            f"at most {MAX_PIXELS:,}, and {_MAX_PIXELS_OF_PARTS:,} in all"
        )
