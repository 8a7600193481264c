"""Decoding of every kind of file, and the parts that are cut out."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rattn_jax.data.images import (
    BadImageError,
    Box,
    center_box,
    decode_image,
    load_crop,
    random_box,
)
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
    monkeypatch.setattr("rattn_jax.data.images.MAX_PIXELS", 2399)
    for kind in ("PNG", "JPEG"):
        with pytest.raises(BadImageError, match="60x40 pixels: at most 2399 are decoded"):
            decode_image(encode(IMAGE, kind))


def test_flipped_bit_in_a_png_is_noticed():
    data = bytearray(encode(IMAGE, "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(BadImageError):
        decode_image(bytes(data))


def test_center_box_is_resize_and_crop():
    assert center_box(1.0)(40, 60) == Box(0, 10, 40, 40)
    assert center_box(0.875)(256, 512) == Box(16, 144, 224, 224)
    assert center_box(0.875)(1, 1) == Box(0, 0, 1, 1)
    large = pixels(320, 480)
    resized = Image.fromarray(large).resize((240, 160), Image.Resampling.BOX)
    expected = np.asarray(resized)[10:150, 50:190]
    image = load_crop(large, center_box(0.875), 140)
    assert np.abs(image.astype(int) - expected).max() <= 1


def test_fast_decoding_is_almost_exact():
    data = encode(pixels(400, 600))
    fast, exact = decode_image(data, fast=True).astype(int), decode_image(data)
    assert 0 < np.abs(fast - exact).mean() < 1


def test_image_of_the_right_size_is_not_touched():
    square = np.ascontiguousarray(IMAGE[:, :40])
    np.testing.assert_array_equal(load_crop(encode(square, "PNG"), center_box(1.0), 40), square)


def test_one_pixel():
    image = load_crop(encode(IMAGE[:1, :1], "PNG"), center_box(0.875), 5)
    np.testing.assert_array_equal(image, np.broadcast_to(IMAGE[0, 0], (5, 5, 3)))
    box = random_box(np.random.RandomState(0).random_sample((10, 4)), (0.08, 1.0))(1, 1)
    assert box == Box(0, 0, 1, 1)


def test_jpeg_decoded_at_a_fraction_gives_the_same_part():
    large = pixels(400, 600)
    data = encode(large, quality=95)
    assert decode_image(data, at_least=(100, 150)).shape == (100, 150, 3)
    assert decode_image(data, at_least=(201, 150)).shape == (400, 600, 3)
    for box in (Box(0, 0, 400, 400), Box(80, 120, 240, 320)):
        reduced = load_crop(data, lambda *_, box=box: box, 50)
        full = load_crop(large, lambda *_, box=box: box, 50)
        assert np.abs(reduced.astype(int) - full).max() <= 8


@pytest.mark.parametrize(("height", "width"), [(300, 400), (40, 1000), (1000, 3), (2, 2)])
def test_random_box_lies_in_the_image(height, width):
    for draws in np.random.RandomState(0).random_sample((200, 10, 4)):
        top, left, h, w = random_box(draws, (0.08, 1.0))(height, width)
        assert top >= 0
        assert left >= 0
        assert 1 <= h <= height - top
        assert 1 <= w <= width - left


def test_random_box_has_the_areas_and_ratios_asked_for():
    draws = np.random.RandomState(0).random_sample((2000, 10, 4))
    boxes = np.array([random_box(row, (0.2, 0.5))(1000, 1000) for row in draws])
    areas, ratios = boxes[:, 2] * boxes[:, 3] / 1e6, boxes[:, 3] / boxes[:, 2]
    assert 0.199 < areas.min() < 0.21
    assert 0.49 < areas.max() < 0.501
    assert areas.mean() == pytest.approx(0.35, abs=0.01)
    assert 0.749 < ratios.min() < 0.76
    assert 1.32 < ratios.max() < 1.335
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.02)
    assert boxes[:, 0].min() < 10
    assert (boxes[:, 0] + boxes[:, 2]).max() > 990
