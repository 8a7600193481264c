"""The orientation of an image, which cameras write into its metadata (EXIF)."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from rattn_jax.data.boxes import Box

_EXIF_ORIENTATION = 0x0112


class Orientation(NamedTuple):
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


AS_STORED = Orientation()
# The values of EXIF's tag "Orientation" (CIPA DC-008, 4.6.4).
_ORIENTATIONS = {
    2: Orientation(False, False, True),
    3: Orientation(False, True, True),
    4: Orientation(False, True, False),
    5: Orientation(True, False, False),
    6: Orientation(True, False, True),
    7: Orientation(True, True, True),
    8: Orientation(True, True, False),
}


def orientation_of(image: Image.Image) -> Orientation:
    """The orientation that an image's metadata says, unless Pillow turns it as it is read."""
    if image.format == "TIFF":
        return AS_STORED
    return _ORIENTATIONS.get(image.getexif().get(_EXIF_ORIENTATION, 1), AS_STORED)
