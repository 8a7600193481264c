"""Decoding of every kind of file."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rattn_jax.data.decoding import BadImageError, decode_image, read_header, to_upright_rgb
from tests.data.images import encode, pixels

IMAGE = pixels()


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("PNG", 0), ("JPEG", 3), ("WEBP", 3), ("GIF", 20), ("BMP", 0)]
)
def test_colours(kind, tolerance):
    image = decode_image(encode(IMAGE, kind))
    assert (image.shape, image.dtype) == (IMAGE.shape, np.uint8)
    assert np.abs(image.astype(int) - IMAGE).mean() <= tolerance


def test_jpeg_decoders_agree():
    data = encode(IMAGE, progressive=True)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode_image(data), np.asarray(image))


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "L"), ("JPEG", "L"), ("PNG", "LA"), ("PNG", "1"), ("PNG", "I;16")]
)
def test_grey_has_three_equal_channels(kind, mode):
    grey = np.asarray(Image.fromarray(IMAGE).convert("L"))
    data = encode(grey.astype(np.uint16) * 257, kind, mode) if mode == "I;16" else None
    image = decode_image(data or encode(IMAGE, kind, mode))
    np.testing.assert_array_equal(image, image[..., :1].repeat(3, axis=2))
    if mode != "1":
        assert np.abs(image[..., 0].astype(int) - grey).max() <= 4


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGBA", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("JPEG", "CMYK", {"quality": 95}),
        ("PNG", "P", {}),
        ("PNG", "P", {"transparency": b"\x00\x80"}),
    ],
)
def test_other_colour_spaces_become_rgb(kind, mode, options):
    expected = np.asarray(Image.fromarray(IMAGE).convert(mode).convert("RGB"))
    image = decode_image(encode(IMAGE, kind, mode, **options))
    assert np.abs(image.astype(int) - expected).max() <= 10


@pytest.mark.parametrize(
    ("kind", "dtype"), [("PNG", np.uint16), ("TIFF", np.uint16), ("PPM", np.int32)]
)
def test_sixteen_bits_of_grey_keep_the_upper_eight(kind, dtype):
    grey, stream = IMAGE[..., 0], io.BytesIO()
    Image.fromarray(grey.astype(dtype) * 256 + 255).save(stream, kind)
    np.testing.assert_array_equal(decode_image(stream.getvalue())[..., 1], grey)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_file_whose_zero_is_white_is_no_negative(dtype):
    grey, stream = IMAGE[..., 0], io.BytesIO()
    stored = grey if dtype == np.uint8 else (255 - grey).astype(dtype) * 257  # Pillow inverts 8
    Image.fromarray(stored).save(stream, "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(decode_image(stream.getvalue())[..., 1], grey)


def test_sixteen_bits_that_would_be_black_are_refused():
    stream = io.BytesIO()
    Image.fromarray(IMAGE[..., 0].astype(np.uint16)).save(stream, "PNG")
    with pytest.raises(BadImageError, match="its 16 bits hold 8, and would be black"):
        decode_image(stream.getvalue())
    black = np.zeros((4, 4), np.uint16)
    stream = io.BytesIO()
    Image.fromarray(black).save(stream, "PNG")
    assert not decode_image(stream.getvalue()).any()


@pytest.mark.parametrize(
    ("dtype", "kind", "what"),
    [(np.int32, "TIFF", "32-bit numbers"), (np.float32, "TIFF", "floats"), (np.float32, "PPM", "")],
)
def test_numbers_of_unknown_range_are_refused(dtype, kind, what):
    stream = io.BytesIO()
    image = Image.fromarray(IMAGE[..., 0].astype(dtype))
    image.save(stream, kind)
    message = f"its pixels are {what}.*, of unknown range: scale them to 8 or 16 bits"
    with pytest.raises(BadImageError, match=message):
        decode_image(stream.getvalue())
    with pytest.raises(BadImageError, match=message):
        to_upright_rgb(image)


def test_of_an_animation_the_first_frame_is_taken():
    others = [Image.fromarray(255 - IMAGE)]
    for kind, tolerance in (("GIF", 20), ("PNG", 0), ("WEBP", 3), ("TIFF", 0)):
        data = encode(IMAGE, kind, save_all=True, append_images=others)
        assert np.abs(decode_image(data).astype(int) - IMAGE).mean() <= tolerance


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PCX", "TGA", "ICO"])
def test_other_formats_are_not_even_tried(kind):
    with pytest.raises(BadImageError, match="not an image of a known format"):
        decode_image(encode(IMAGE, kind))


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "PPM", "TIFF"])
def test_less_usual_formats(kind):
    image = decode_image(encode(IMAGE, kind))
    assert np.abs(image.astype(int) - IMAGE).mean() <= 3


def test_a_damaged_file_that_raises_anything_is_a_bad_image(monkeypatch):
    def load(_):
        raise KeyError

    data = encode(IMAGE, "TIFF")
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", load)
    with pytest.raises(BadImageError, match="KeyError"):
        decode_image(data)


def test_a_header_that_raises_anything_is_a_bad_image(monkeypatch):
    monkeypatch.setattr("rattn_jax.data.decoding._open", lambda data: {}["magic number"])
    with pytest.raises(BadImageError, match="magic number"):
        read_header(encode(IMAGE))


def test_pillow_reads_what_simplejpeg_does_not(monkeypatch):
    def refuse(*_, **__):
        raise ValueError("unusual")

    expected = decode_image(encode(IMAGE)).astype(int)
    monkeypatch.setattr("simplejpeg.decode_jpeg", refuse)
    assert np.abs(decode_image(encode(IMAGE)) - expected).mean() <= 1


def _claims_to_be_huge() -> bytes:
    """A PNG file of some bytes with a header of 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"hello", "not an image"),
        (encode(IMAGE)[:-200], "truncated"),
        (encode(IMAGE)[:100], "Truncated"),
        (encode(IMAGE, "PNG")[:-200], "truncated"),
        (encode(IMAGE, "WEBP")[:-200], "decoder"),
        (_claims_to_be_huge(), "decompression bomb"),
    ],
)
def test_bad_files(data, reason):
    with pytest.raises(BadImageError, match=reason):
        decode_image(data)


def test_too_many_pixels(monkeypatch):
    monkeypatch.setattr("rattn_jax.data.decoding.MAX_PIXELS", 2399)
    for kind in ("PNG", "JPEG"):
        with pytest.raises(BadImageError, match="60x40 pixels: at most 2399 are decoded"):
            decode_image(encode(IMAGE, kind))


def test_flipped_bit_in_a_png_is_noticed():
    data = bytearray(encode(IMAGE, "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(BadImageError):
        decode_image(bytes(data))


def test_fast_decoding_is_almost_exact():
    data = encode(pixels(403, 598))
    fast, exact = decode_image(data, fast=True).astype(int), decode_image(data)
    assert 0 < np.abs(fast - exact).mean() < 1
