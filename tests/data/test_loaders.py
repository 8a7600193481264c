"""What loaders give to the training and to evaluations, resident and streamed."""

from contextlib import closing

import numpy as np
import pytest

from rattn_jax.config.load import parse_config
from rattn_jax.data import open_dataset
from rattn_jax.data.boxes import center_box
from rattn_jax.data.catalog import build_dataset
from rattn_jax.data.dataset import DatasetSpec
from rattn_jax.data.label_noise import LabelNoise, symmetric_matrix
from rattn_jax.data.open_loader import image_sizes, open_loader
from rattn_jax.data.read import load, load_split
from rattn_jax.data.sampling import training_indices
from rattn_jax.errors import DataError
from rattn_jax.parallel.mesh import make_mesh
from tests.data.smallest import changed, folder_config, streaming
from tests.data.test_folder import make_folder
from tests.devices import ONE


def loader_of(config):
    config = parse_config(config)
    dataset = build_dataset(config)
    sizes = image_sizes(config.dataset, DatasetSpec(dataset.num_classes, 8, 0, 0))
    return open_loader(config, dataset, sizes, make_mesh(ONE))


@pytest.mark.parametrize("stream", [False, True])
def test_noise_reaches_training_labels_only(stream):
    make = streaming if stream else changed
    config = make(dataset__label_noise__clean_ratio=0.3, validation_examples=50, seed=3)
    loader = loader_of(config)
    digits = open_dataset("digits")
    noise = LabelNoise(symmetric_matrix(10, 0.3), seed=3)
    clean = {
        digits.train[i].image.tobytes(): (digits.train[i].label, noise(i, digits.train[i].label))
        for i in range(len(digits.train))
    }
    data, rows, _ = loader.train(0, 2)
    if stream:
        images, labels = (x.reshape(-1, *x.shape[2:]) for x in rows)
    else:
        images, labels = (np.asarray(x)[rows.reshape(-1)] for x in data[:2])
    expected = [clean[image.tobytes()] for image in images]
    assert list(labels) == [noisy for _, noisy in expected]
    assert 10 < sum(label != noisy for label, noisy in expected) < 32

    held_out = []
    for data, rows, mask in loader.eval("validation"):
        images = rows.images[mask] if stream else np.asarray(data.images)[rows[mask]]
        labels = rows.labels[mask] if stream else np.asarray(data.labels)[rows[mask]]
        assert list(labels) == [clean[image.tobytes()][0] for image in images]
        held_out += labels.tolist()
    np.testing.assert_array_equal(np.bincount(held_out), [5] * 10)
    loader.close()


def test_test_examples_are_counted_before_they_are_evaluated():
    for config in (changed(), streaming()):
        with closing(loader_of(config)) as loader:
            assert loader.num_examples("test") == 360


def test_larger_images_are_read_anew_for_random_crops(tmp_path):
    folder = make_folder(tmp_path / "images", count=4)
    for area, resident in ((None, True), ((0.5, 1.0), False)):
        keys = {"augmentation__resized_crop_area": area, "normalization": "imagenet"}
        config = folder_config(folder, **keys)
        with closing(loader_of(config)) as loader:
            assert loader.resident is resident
    with closing(loader_of(changed(augmentation__resized_crop_area=(0.5, 1.0)))) as loader:
        assert loader.resident, "digits have the size of the network"


def test_a_balanced_order_is_the_same_resident_and_streamed(tmp_path):
    folder = make_folder(tmp_path / "images", count=12)
    for number in range(2, 12):
        (folder / f"train/dog/{number}.{('jpg', 'PNG', 'webp')[number % 3]}").unlink()
    keys = {"dataset__sampling": "balanced", "normalization": "imagenet", "batch_size": 4}
    found = []
    for max_bytes in (0, 2**30):
        config = folder_config(folder, dataset__max_resident_bytes=max_bytes, **keys)
        loader = loader_of(config)
        data, rows, _ = loader.train(3, 3)
        stream = max_bytes == 0
        labels = rows.labels if stream else np.asarray(data.labels)[rows]
        images = rows.images if stream else np.asarray(data.images)[rows]
        np.testing.assert_array_equal(np.sum(labels, axis=1), [2, 2, 2])
        np.testing.assert_array_equal(loader.host_batch(4).labels, labels[1])
        found.append(np.mean(np.asarray(images, float), axis=(2, 3, 4)))
        loader.close()
    # A stream decodes JPEG files a little differently.
    np.testing.assert_allclose(found[0], found[1], atol=1)


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_the_order_with_bad_examples_is_the_same_resident_and_streamed(tmp_path, sampling):
    folder = make_folder(tmp_path / "images", count=12)
    for name in ("cat/0.jpg", "cat/10.PNG", "cat/11.webp", "dog/9.jpg"):
        (folder / "train" / name).write_bytes(b"")
    for number in range(3, 9):
        (folder / f"train/dog/{number}.{('jpg', 'PNG', 'webp')[number % 3]}").unlink()
    config = folder_config(
        folder,
        normalization="imagenet",
        dataset__sampling=sampling,
        dataset__label_noise__clean_ratio=0.5,
    )
    found = []
    for max_bytes in (0, 2**30):
        config.dataset.max_resident_bytes = max_bytes
        with closing(loader_of(config)) as loader:
            batches = [loader.host_batch(step) for step in range(12)]
        images = np.concatenate([np.asarray(batch.images, float) for batch in batches])
        found.append((np.concatenate([batch.labels for batch in batches]), images))
    (streamed, stream), (resident, images) = found
    np.testing.assert_array_equal(streamed, resident)
    # A stream decodes JPEG files a little differently.
    np.testing.assert_allclose(stream.mean(axis=(1, 2)), images.mean(axis=(1, 2)), atol=3)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("max_resident_bytes", [0, 2**30])
def test_the_way_to_scale_reaches_every_image(tmp_path, max_resident_bytes, exact):
    folder, stream = make_folder(tmp_path / "images", count=4), max_resident_bytes == 0
    config = folder_config(
        folder,
        dataset__exact_pixels=exact,
        dataset__max_resident_bytes=max_resident_bytes,
        normalization="imagenet",
    )
    with closing(loader_of(config)) as loader:
        trained = loader.host_batch(0).images
        tested = [
            rows.images[mask] if stream else np.asarray(data.images)[rows[mask]]
            for data, rows, mask in loader.eval("test")
        ]
    dataset = open_dataset(f"folder:{folder}")
    order = training_indices(config.seed, 0, 4, 8).tolist()
    for source, positions, images, fast in (
        (dataset.train, order, trained, stream),
        (dataset.test, range(8), np.concatenate(tested), False),
    ):
        expected, other = (
            [load(source, i, center_box(1.0), 8, 2, fast=fast, exact=e).image for i in positions]
            for e in (exact, not exact)
        )
        np.testing.assert_array_equal(images, expected)
        assert (images != other).any(axis=(1, 2, 3)).all()


def test_what_is_held_out_is_not_trained_on():
    config = changed(validation_examples=200)
    loader = loader_of(config)
    train = {image.tobytes() for image in np.asarray(loader.train(0, 1).data.images)}
    whole = load_split(open_dataset("digits").train, size=8, num_classes=10)
    held_out = [
        image.tobytes()
        for data, rows, mask in loader.eval("validation")
        for image in np.asarray(data.images)[rows[mask]]
    ]
    assert len(held_out) == 200
    every = [image.tobytes() for image in whole.images]
    assert sorted([*held_out, *train]) == sorted({*every})


@pytest.mark.parametrize("max_resident_bytes", [0, 2**30])
def test_blacklisted_test_images_do_not_count(tmp_path, max_resident_bytes, caplog):
    folder = make_folder(tmp_path / "images", count=4)
    (tmp_path / "list.txt").write_text("0.jpg\ncat/2.webp\ndog/1.PNG\n7.jpg\nx\n")
    config = folder_config(
        folder,
        dataset__max_resident_bytes=max_resident_bytes,
        dataset__test_exclude_file=str(tmp_path / "list.txt"),
        normalization="imagenet",
    )
    loader = loader_of(config)
    masks = [mask for _, _, mask in loader.eval("test")]
    assert sum(mask.sum() for mask in masks) == loader.num_examples("test") == 4
    list(loader.eval("test"))
    shown = loader.read("test", range(4))  # as the page of a run does
    assert len(shown.labels) == (2 if max_resident_bytes == 0 else 4)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "dataset.test_exclude_file: no test image has the name 7.jpg (and 1 more names): a line "
        "must have the name of a file, alone or as in class/name",
        "dataset.test_exclude_file: 0.jpg is the name of 2 test images, none of which counts: to "
        "exclude one of them, write class/name",
    ]


@pytest.mark.parametrize("max_resident_bytes", [0, 2**30])
def test_a_list_that_excludes_all_test_images_is_refused_at_the_start(tmp_path, max_resident_bytes):
    folder = make_folder(tmp_path / "images")
    (tmp_path / "list.txt").write_text("0.jpg\n1.PNG\ncat/2.webp\n")
    keys = {
        "dataset__max_resident_bytes": max_resident_bytes,
        "dataset__test_exclude_file": str(tmp_path / "list.txt"),
        "normalization": "imagenet",
    }
    with closing(loader_of(folder_config(folder, **keys))) as loader:
        assert sum(mask.sum() for _, _, mask in loader.eval("test")) == 1
    (tmp_path / "list.txt").write_text("0.jpg\n1.PNG\n2.webp\n")
    with pytest.raises(DataError, match=r"list.txt' excludes all 6 test images: some must count"):
        loader_of(folder_config(folder, **keys))
