"""The pictures of training images, and the benchmark of the input."""

import numpy as np
import pytest

from experiments import benchmark_input
from experiments.benchmark_input import load_ours, load_pillow
from experiments.show_batch import caption, draw, training_batch
from rattn_jax.data import open_dataset, stream
from rattn_jax.data.boxes import random_box
from rattn_jax.data.sampling import training_indices
from tests.data.images import encode, pixels
from tests.data.test_loading import Files
from tests.tiny import make_config


def test_training_batch_is_what_the_step_sees():
    config = make_config()
    config.augmentation.crop_padding, config.augmentation.flip = 0, False
    images, targets, class_names = training_batch(config, step=3)
    train = open_dataset("digits").train
    indices = training_indices(config.seed, 3, 16, len(train))
    np.testing.assert_array_equal(images, [train[i].image for i in indices])
    np.testing.assert_array_equal(targets.argmax(axis=1), [train[i].label for i in indices])
    assert class_names == list("0123456789")
    config.augmentation.crop_padding = 1
    assert (training_batch(config, step=3)[0] != images).any()


@pytest.mark.parametrize(
    ("target", "text"),
    [([0, 1, 0], "bee"), ([0.3, 0, 0.7], "70% cat\n30% ant"), ([0.98, 0.01, 0.01], "ant")],
)
def test_caption(target, text):
    assert caption(np.array(target), ["ant", "bee", "cat"]) == text


def test_picture():
    images = np.stack([pixels(32, 32, seed=i) for i in range(9)])
    sheet = np.asarray(draw(images, ["a name that is much too long for its image"] * 9))
    assert sheet.shape == (2 * (128 + 30 + 6) + 6, 8 * (128 + 6) + 6, 3)
    np.testing.assert_array_equal(sheet[6:134:4, 6:134:4], images[0])
    np.testing.assert_array_equal(sheet[170:298:4, 6:134:4], images[8])


def test_both_sides_of_the_benchmark_crop_the_same_parts(monkeypatch):
    source = Files([encode(pixels(seed=i)) for i in range(5)])
    found = []

    def watch(draws, area):
        choose = random_box(draws, area)
        return lambda height, width: (found[-1].append(choose(height, width)), found[-1][-1])[1]

    for module, load in ((stream, load_ours), (benchmark_input, load_pillow)):
        monkeypatch.setattr(module, "random_box", watch)
        found.append([])
        load(source, 5, 32, 1)
    assert sorted(found[0]) == sorted(found[1])
    assert len({*found[0]}) > 20


@pytest.mark.parametrize("load", [load_ours, load_pillow])
def test_benchmark_reads_as_many_images_as_it_says(load):
    read = []

    class Watched(Files):
        def __getitem__(self, position):
            read.append(position)
            return super().__getitem__(position)

    load(Watched([encode(pixels(seed=i)) for i in range(5)]), 5, 64, 2)
    assert len(read) == 64
    assert set(read) == set(range(5))
