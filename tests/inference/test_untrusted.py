"""What is refused of strangers' images before anything of them is decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rattn_jax.data.decoding import BadImageError
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
