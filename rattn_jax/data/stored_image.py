"""Encodes an image for a prepared dataset: as it is, or anew where readers of TFDS need that."""

import io

import numpy as np
from PIL import Image

from rattn_jax.data.dataset import Example
from rattn_jax.data.decoding import decode_image, decode_upright, read_header

_QUALITY = 95  # of a JPEG that is written anew


def stored_image(example: Example, shorter_side: int | None, *, only_jpeg: bool) -> bytes:
    """The image of an example as it is stored, encoded.

    Args:
        example: the example.
        shorter_side: larger images are scaled down to this height or width, in pixels; None: none
            are.
        only_jpeg: whether all images must be JPEG files.

    Raises:
        BadImageError: it cannot be decoded.
    """
    if isinstance(example.image, np.ndarray):
        kind, pixels = "PNG", example.image
    else:
        header = read_header(example.image)
        kind = "JPEG" if header.kind == "JPEG" or only_jpeg else "PNG"
        is_plain = header.kind == kind and header.mode != "CMYK"
        is_small = shorter_side is None or min(header.height, header.width) <= shorter_side
        if is_plain and is_small and (header.is_upright or not example.upright):
            return example.image
        pixels = decode_upright(example.image) if example.upright else decode_image(example.image)
    image = Image.fromarray(pixels)
    if shorter_side is not None and min(image.size) > shorter_side:
        scale = shorter_side / min(image.size)
        width, height = (max(shorter_side, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, kind, quality=_QUALITY, subsampling=0)
    return stream.getvalue()
