"""What decoding a TIFF file goes through, which may be far more than its image has.

parts = read_parts(data)
parts.number, parts.largest, parts.decoded

A TIFF file consists of strips or tiles, which are decoded as a whole. A tile may be larger than the
image, and many of them may be the same bytes. The header is read here, since Pillow and libtiff
differ in what they make of an unusual one.
"""

import struct
from typing import NamedTuple

# Of the first four bytes: byte order, and whether it is a BigTIFF. Pillow opens others as well, but
# libtiff does not, or finds another image in them.
_KINDS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True)}
_WIDTH, _LENGTH, _COMPRESSION = 256, 257, 259
_STRIP_OFFSETS, _ROWS_PER_STRIP = 273, 278
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = 322, 323, 324
_SHORT, _LONG = 3, 4  # types of a tag's value, of 2 and 4 bytes
_JPEG = (6, 7)  # of compression
_BLOCK = 16  # JPEG decodes such squares; sides of tiles are multiples of it
_MAX_TAGS = 4096  # libtiff's limit
_MAX_CHANNELS = 4  # that may be stored apart from each other


class Parts(NamedTuple):
    """The strips or tiles of an image.

    Attributes:
        number: how many there are.
        largest: pixels of one of them.
        decoded: pixels of all that are decoded.
    """

    number: int
    largest: int
    decoded: int


def read_parts(data: bytes) -> Parts:
    """The parts of the first image of a TIFF file.

    Raises:
        ValueError: the header is damaged, or not one that Pillow and libtiff read alike.
        struct.error: it is truncated.
    """
    tags = _read_tags(data)

    def value(tag: int) -> int:
        kind, count, first = tags[tag]
        if kind not in (_SHORT, _LONG) or count != 1 or not first:
            raise ValueError(f"tag {tag} must be one whole number of 2 or 4 bytes")
        return first

    width, length = value(_WIDTH), value(_LENGTH)
    if any(tag in tags for tag in (_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS)):
        if _STRIP_OFFSETS in tags:
            raise ValueError("it has both strips and tiles")
        part, (_, count, _) = (value(_TILE_WIDTH), value(_TILE_LENGTH)), tags[_TILE_OFFSETS]
        block = _BLOCK
    else:
        rows = value(_ROWS_PER_STRIP) if _ROWS_PER_STRIP in tags else length
        part, (_, count, _) = (width, min(rows, length)), tags[_STRIP_OFFSETS]
        is_jpeg = _COMPRESSION in tags and value(_COMPRESSION) in _JPEG
        block = _BLOCK if is_jpeg else 1
    needed = -(-width // part[0]) * -(-length // part[1])
    largest = -(-part[0] // block) * -(-part[1] // block) * block**2
    return Parts(count, largest, largest * max(needed, -(-count // _MAX_CHANNELS)))


def _read_tags(data: bytes) -> dict[int, tuple[int, int, int]]:
    """Type and number of the values of each tag, and the first value if it has 2 or 4 bytes.

    Raises:
        ValueError, struct.error: see `read_parts`.
    """
    if data[:4] not in _KINDS:
        raise ValueError(f"it begins with {data[:4]!r}")
    order, is_big = _KINDS[data[:4]]
    (start,) = struct.unpack_from(f"{order}{'Q' if is_big else 'L'}", data, 8 if is_big else 4)
    head = struct.Struct(f"{order}{'Q' if is_big else 'H'}")
    entry = struct.Struct(f"{order}HH{'Q8s' if is_big else 'L4s'}")
    (num_tags,) = head.unpack_from(data, start)
    if num_tags > _MAX_TAGS:
        raise ValueError(f"it has {num_tags:,} tags")
    tags: dict[int, tuple[int, int, int]] = {}
    for i in range(num_tags):
        tag, kind, count, content = entry.unpack_from(data, start + head.size + i * entry.size)
        if tag in tags:
            raise ValueError(f"it has tag {tag} twice")
        (first,) = struct.unpack_from(f"{order}{'L' if kind == _LONG else 'H'}", content)
        tags[tag] = kind, count, first
    return tags
