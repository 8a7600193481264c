"""What is refused of strangers' images before anything of them is decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rattn_jax.data.decoding import BadImageError
from rattn_jax.inference.tiff_parts import Parts, read_parts
from rattn_jax.inference.untrusted import TooLargeError, UnknownFormatError, check_header


def encoded(kind, **keywords):
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **keywords)
    return buffer.getvalue()


def test_headers_of_strangers_images():
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    check_header(encoded("PNG"))
    with pytest.raises(UnknownFormatError):
        check_header(encoded("PPM"))
    for width, height in ((20_000, 1), (6_000, 5_000), (100_000, 100_000)):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
        with pytest.raises(TooLargeError, match=r"pixels"):
            check_header(data)
    with pytest.raises(BadImageError):
        check_header(b"GIF89a")


def test_scans_of_strangers_images():
    """Each takes as long to decode as the image is large, however short it is."""
    empty = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00"
    end = b"\xff\xd9"
    progressive = encoded("JPEG", progressive=True)
    assert progressive.count(b"\xff\xda") == 10
    check_header(progressive[:-2] + 90 * empty + end)
    with pytest.raises(TooLargeError, match=r"^has 101 scans: must be at most 100; save it anew$"):
        check_header(progressive[:-2] + 91 * empty + end)
    several = encoded("MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert Image.open(io.BytesIO(several)).format == "MPO"
    with pytest.raises(TooLargeError, match="has 102 scans"):
        check_header(several[:-2] + 100 * empty + end)
    check_header(progressive + 1000 * b"\xff\xda")  # an appended video has some of these
    check_header(encoded("PNG") + 1000 * empty)


@pytest.mark.parametrize("bits", [8, 4])
def test_run_lengths_of_strangers_bmp_files(bits):
    def bmp(compression, content):
        header = (40, 16, 16, 1, bits, compression, len(content), 0, 0, 2**bits, 0)
        start = 14 + 40 + 4 * 2**bits
        head = b"BM" + struct.pack("<IHHI", start + len(content), 0, 0, start)
        return head + struct.pack("<IiiHHIIiiII", *header) + bytes(4 * 2**bits) + content

    check_header(bmp(0, bytes(16 * 16 * bits // 8)))
    with pytest.raises(UnknownFormatError, match="is a BMP file with run-length encoding: save it"):
        check_header(bmp(1 if bits == 8 else 2, b"\1\1\0\0" * 16))


def tiff(tags, content=b"", big=False):
    """A TIFF file of (tag, type, numbers), each of which has its offset where it is None."""
    letters = {3: "H", 4: "I", 17: "q"}
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16) if big else b"II*\0" + struct.pack("<I", 8)
    entry, inline = ("<HHQ", 8) if big else ("<HHI", 4)
    start = len(head) + (8 if big else 2) + len(tags) * (struct.calcsize(entry) + inline) + inline
    values = [struct.pack(f"<{len(n)}{letters[kind]}", *n) if n else None for _, kind, n in tags]
    beside = b"".join(v for v in values if v and len(v) > inline)
    directory, place = struct.pack("<Q" if big else "<H", len(tags)), start
    for (tag, kind, numbers), packed in zip(tags, values, strict=True):
        if packed is None:  # the content
            packed = struct.pack("<I", start + len(beside))
        directory += struct.pack(entry, tag, kind, len(numbers) or 1)
        if len(packed) > inline:
            directory += struct.pack("<Q" if big else "<I", place)
            place += len(packed)
        else:
            directory += packed.ljust(inline, b"\0")
    return head + directory + bytes(inline) + beside + content


def tags_of(side, parts, compression=8):
    """Of a grey image [side, side] of 8 bits."""
    image = [(256, 4, [side]), (257, 4, [side]), (258, 3, [8]), (259, 3, [compression])]
    return [*image, (262, 3, [1]), *parts]


def tiles_of(side, tile, count=1):
    """A TIFF file with so many tiles, which share one place."""
    content = zlib.compress(bytes(tile[0] * tile[1]))
    offsets, lengths = [[500] * count, [len(content)] * count] if count > 1 else [[], [9]]
    parts = [(322, 4, [tile[0]]), (323, 4, [tile[1]]), (324, 4, offsets), (325, 4, lengths)]
    return tiff(tags_of(side, parts), content)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiles_of(64, (16_384, 16_384)), r"tiles of 268,435,456 pixels"),
        (tiles_of(64, (4096, 4096), 4), None),  # as much as a large image
        (tiles_of(4200, (4096, 4096), 4), r"tiles of 16,777,216 pixels, 67,108,864 in all"),
        (tiles_of(500, (1, 1), 250_000), r"has 250,000 strips or tiles: must be at most 20,000"),
        # Uncompressed strips that overlap, each of which Pillow reads.
        (
            tiff(tags_of(2000, [(273, 4, [500] * 100), (278, 4, [1999]), (279, 4, [9])], 1)),
            r"strips or tiles of 3,998,000 pixels, 99,950,000 in all",
        ),
        # Of JPEG squares of 16x16 are decoded for a single row.
        (
            tiff(tags_of(3000, [(273, 4, [500] * 3000), (278, 4, [1]), (279, 4, [9])], 7)),
            r"strips or tiles of 48,128 pixels, 144,384,000 in all",
        ),
    ],
)
def test_parts_of_strangers_tiff_files(data, message):
    """They are decoded as a whole, however small the image is and however often they are used."""
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
        assert max(image.size) <= 4200
    if message:
        with pytest.raises(TooLargeError, match=message):
            check_header(data)
    else:
        check_header(data)


@pytest.mark.parametrize(
    "data",
    [
        # Pillow takes the second of these widths, and libtiff the first.
        tiff(tags_of(64, [(322, 17, [16_384]), (322, 3, [64]), (323, 3, [64]), (324, 4, [])])),
        tiff(tags_of(64, [(322, 17, [16_384]), (323, 3, [64]), (324, 4, [])])),
        tiff(tags_of(64, [(322, 3, [64, 64]), (323, 3, [64]), (324, 4, [])])),
        tiff(tags_of(64, [(322, 3, [0]), (323, 3, [64]), (324, 4, [])])),
        # Pillow reads strips, and libtiff tiles.
        tiff(tags_of(64, [(273, 4, []), (322, 3, [64]), (323, 3, [64]), (324, 4, [])], 1)),
        b"MM\0+" + struct.pack(">HHQ", 8, 0, 16) + bytes(90),
        b"II*\0" + struct.pack("<I", 2**31) + bytes(90),
    ],
)
def test_headers_that_pillow_and_libtiff_may_read_differently(data):
    with pytest.raises(BadImageError, match=r"^has a damaged header$"):
        check_header(data)


def test_ordinary_tiff_files():
    for keywords in ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"big_tiff": True}):
        check_header(encoded("TIFF", **keywords))
    data = tiles_of(40, (32, 32), 4)
    check_header(data)
    parts = [(322, 3, [32]), (323, 3, [32]), (324, 4, []), (325, 4, [1024])]
    one = tiff(tags_of(20, parts, compression=1), bytes(range(256)) * 4)
    check_header(one)
    with Image.open(io.BytesIO(one)) as image:
        np.testing.assert_array_equal(np.asarray(image)[1], np.arange(32, 52))
    assert read_parts(tiff(tags_of(20, parts), big=True)) == Parts(1, 1024, 1024)
