"""The picture of masks over one test image of each class."""

import numpy as np
import pytest
from PIL import Image

import rattn_jax
from experiments import draw_masks
from rattn_jax.inference.examples import open_split, read_batches


def test_images_are_one_of_each_class():
    network = rattn_jax.load("attention56_digits")
    images = draw_masks.one_of_each_class(network)
    (batch,) = read_batches(network, *open_split(network, "test", 64), batch_size=64)
    first = [np.flatnonzero(batch.labels == label)[0] for label in range(10)]
    np.testing.assert_array_equal(images, batch.images[first])


def test_channels_are_those_that_vary_most_within_an_image():
    masks = np.zeros((2, 4, 4, 5), np.float32)
    masks[..., 3] = np.arange(4)  # within an image
    masks[:, :2, :, 1] = 1.0
    masks[1, ..., 2] = 100.0  # from image to image
    assert draw_masks.most_varied(masks) == [3, 1]


def test_picture(tmp_path, capsys):
    out = tmp_path / "masks.png"
    draw_masks.main(["--pretrained=attention56_digits", f"--out={out}"])
    with Image.open(out) as picture:  # three modules, two channels of each
        assert picture.size == (132 + 10 * 100, 34 + 7 * 100)
    assert capsys.readouterr().out == f"{out}: 1132x734 pixels\n"
    with pytest.raises(SystemExit):
        draw_masks.main(["--pretrained=attention56_digits", f"--out={tmp_path}"])
    assert "cannot be written" in capsys.readouterr().err
