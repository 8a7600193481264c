"""Checks of image files that come from strangers, before anything of them is decoded.

check_header(data)       # raises UnknownFormatError or TooLargeError
"""

import io

from PIL import Image, UnidentifiedImageError

from rattn_jax.data.decoding import BadImageError

# Pillow's decoders with the shortest record of vulnerabilities; no other sees such a file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_BYTES = 10_000_000
MAX_PIXELS, MAX_SIDE = 25_000_000, 16_384


class UnknownFormatError(BadImageError):
    """A file of none of the `FORMATS`."""


class TooLargeError(BadImageError):
    """More bytes or pixels than are taken."""


def check_header(data: bytes) -> None:
    """Checks format and size of an encoded image.

    Raises:
        UnknownFormatError, TooLargeError: see there.
        BadImageError: the header is damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except UnidentifiedImageError:
        raise UnknownFormatError(f"must be {', '.join(FORMATS)}, and not truncated") from None
    except Image.DecompressionBombError:
        raise TooLargeError(f"has more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # a damaged file can raise anything
        raise BadImageError("has a damaged header") from error
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise TooLargeError(
            f"has {width}x{height} pixels: must be at most {MAX_PIXELS:,}, a side {MAX_SIDE:,}"
        )
