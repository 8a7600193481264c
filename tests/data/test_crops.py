"""The parts of images that are cut out and resized, of every kind of file."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from rattn_jax.data.boxes import Box, center_box, random_box
from rattn_jax.data.crops import load_crop
from rattn_jax.data.decoding import decode_image, to_upright_rgb
from tests.data.images import encode, pixels

IMAGE = pixels()


def test_center_box_is_resize_and_crop():
    assert center_box(1.0)(40, 60) == Box(0, 10, 40, 40)
    assert center_box(0.875)(256, 512) == Box(16, 144, 224, 224)
    assert center_box(0.875)(1, 1) == Box(0, 0, 1, 1)
    large = pixels(320, 480)
    resized = Image.fromarray(large).resize((240, 160), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[10:150, 50:190]
    image = load_crop(large, center_box(0.875), 140)
    assert np.abs(image.astype(int) - expected).max() <= 1


def test_image_of_the_right_size_is_not_touched():
    square = np.ascontiguousarray(IMAGE[:, :40])
    np.testing.assert_array_equal(load_crop(encode(square, "PNG"), center_box(1.0), 40), square)


def test_one_pixel():
    image = load_crop(encode(IMAGE[:1, :1], "PNG"), center_box(0.875), 5)
    np.testing.assert_array_equal(image, np.broadcast_to(IMAGE[0, 0], (5, 5, 3)))
    box = random_box(np.random.RandomState(0).random_sample((10, 4)), (0.08, 1.0))(1, 1)
    assert box == Box(0, 0, 1, 1)


def decode_by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def resize_by_pillow(decoded, box, size):
    top, left, height, width = box
    resized = Image.fromarray(decoded).resize(
        (size, size),
        Image.Resampling.BILINEAR,
        box=(left, top, left + width, top + height),
        reducing_gap=None,
    )
    return np.asarray(resized).astype(int)


@pytest.mark.parametrize("fast", [False, True], ids=["exact", "fast"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "array"])
def test_the_same_picture_gives_the_same_pixels(kind, fast):
    generator = np.random.RandomState(sum(kind.encode()))
    for seed in range(75):
        height, width = generator.randint(20, 400, 2)
        size = generator.randint(24 if fast else 1, 80)
        draws = generator.random_sample((10, 4))
        choose = random_box(draws, (0.08, 1.0)) if seed % 2 else center_box(0.875)
        picture = rough(height, width, seed)
        data = encode(picture, "PNG" if kind == "array" else kind, quality=95)
        image = picture if kind == "array" else data
        found = load_crop(image, choose, size, fast=fast).astype(int)
        expected = resize_by_pillow(decode_by_pillow(data), choose(height, width), size)
        levels = 4 if fast and kind == "JPEG" else 2
        assert np.abs(found - expected).mean() <= levels, (height, width, size)


def rough(height, width, seed):
    """A picture with details of all sizes, as photos have: uint8 [height, width, 3]."""
    generator = np.random.RandomState(seed)
    total = np.zeros((height, width, 3))
    for side in (3, 9, 27, 81):
        noise = generator.randint(0, 256, (side, side, 3)).astype(np.uint8)
        total += np.asarray(Image.fromarray(noise).resize((width, height))) * (3.0 / side)
    return (total / total.max() * 255).astype(np.uint8)


@pytest.mark.parametrize("fast", [False, True], ids=["exact", "fast"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("edge", "size"), [(213, 400), (213, 229), (213, 64), (213, 32), (101, 17), (300, 7)]
)
def test_an_edge_lies_where_it_belongs(kind, edge, size, fast):
    picture = np.zeros((427, 641, 3), np.uint8)
    picture[edge:] = 255
    box = Box(27, 133, 374, 374)
    found = load_crop(encode(picture, kind, quality=95), lambda *_: box, size, fast=fast)
    white = found[..., 0].mean(axis=1).sum() / 255
    assert white == pytest.approx((27 + 374 - edge) * size / 374, abs=0.1)


@pytest.mark.parametrize("fast", [False, True], ids=["exact", "fast"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("side", "size"), [(203, 40), (331, 40), (427, 40), (203, 131)])
def test_a_square_stays_square(side, size, kind, fast):
    box = Box(427 - side, 641 - side - 150, side, side)
    white, top, left = side // 3, box.top + side // 5, box.left + side // 7
    picture = np.zeros((427, 641, 3), np.uint8)
    picture[top : top + white, left : left + white] = 255
    found = load_crop(encode(picture, kind, quality=95), lambda *_: box, size, fast=fast) / 255.0
    rows, columns = found[..., 0].max(axis=1).sum(), found[..., 0].max(axis=0).sum()
    assert rows == pytest.approx(columns, abs=0.3)
    assert rows == pytest.approx(white * size / side, abs=0.3)


@pytest.mark.parametrize(
    ("shrink", "levels"),
    [(0.4, 1), (1.0, 0), (1.1, 4), (1.5, 7), (2.0, 1), (2.3, 3), (3.0, 1), (3.9, 1)],
)
def test_fast_resizing_is_nearly_pillows_even_of_noise(shrink, levels):
    side = round(60 * shrink)
    noise = np.random.RandomState(0).randint(0, 256, (side, side, 3)).astype(np.uint8)
    fast, exact = (
        load_crop(noise, center_box(1.0), 60, fast=fast).astype(int) for fast in (True, False)
    )
    assert np.abs(fast - exact).mean() <= levels
    assert fast.mean() == pytest.approx(exact.mean(), abs=0.5)
    assert fast.std() == pytest.approx(exact.std(), rel=0.1)


def test_jpeg_is_decoded_at_a_fraction_where_that_is_enough(monkeypatch):
    sizes = []

    def decode(data, at_least, *, fast):
        sizes.append(at_least)
        return decode_image(data, at_least, fast=fast)

    monkeypatch.setattr("rattn_jax.data.crops.decode_measured", decode)
    for size in (20, 27, 54, 107):
        load_crop(encode(pixels(427, 641)), center_box(1.0), size)
    assert sizes == [(54, 81), (107, 161), (214, 321), (427, 641)]


@pytest.mark.parametrize("upright", [False, True], ids=["as stored", "upright"])
def test_a_png_file_is_decoded_once(monkeypatch, upright):
    decoded, prepare = [], PngImageFile.load_prepare
    monkeypatch.setattr(PngImageFile, "load_prepare", lambda file: decoded.append(prepare(file)))
    load_crop(encode(IMAGE, "PNG"), center_box(1.0), 20, upright=upright)
    assert len(decoded) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_rotation_in_the_metadata_is_applied(kind, orientation):
    stored = pixels(203, 331)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, kind, quality=95, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        np.testing.assert_array_equal(to_upright_rgb(image), upright)
    choose = random_box(np.random.RandomState(0).random_sample((10, 4)), (0.2, 0.5))
    expected = load_crop(upright, choose, 12)
    found = load_crop(data, choose, 12, upright=True)
    assert np.abs(found.astype(int) - expected).mean() <= 1
    as_stored = load_crop(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), choose, 12)
    assert np.abs(load_crop(data, choose, 12).astype(int) - as_stored).mean() <= 1


def test_runs_of_before_keep_their_pixels():
    large = pixels(400, 600)
    part = large[80:320, 120:440]
    before = load_crop(large, lambda *_: Box(80, 120, 240, 320), 50, exact=False)
    area = cv2.resize(part, (50, 50), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(before, area)
    data = encode(large, quality=95)
    quarter = decode_image(data, at_least=(84, 94))
    assert quarter.shape[0] < 400
    scale = quarter.shape[0] / 400
    whole = (slice(round(80 * scale), None), slice(round(120 * scale), None))
    side = (round(240 * scale), round(320 * scale))
    expected = cv2.resize(quarter[whole][: side[0], : side[1]], (50, 50))
    found = load_crop(data, lambda *_: Box(80, 120, 240, 320), 50, exact=False)
    np.testing.assert_array_equal(found, expected)


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
