"""Image files and prepared datasets for tests, made on the spot."""

import io
import tarfile

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from rattn_jax.data import open_dataset
from rattn_jax.data.read import load_split


def pixels(height=40, width=60, seed=0):
    """A smooth image, which survives JPEG: uint8 [height, width, 3]."""
    generator = np.random.RandomState(seed)
    coarse = Image.fromarray(generator.randint(0, 256, (3, 4, 3)).astype(np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def encode(image, kind="JPEG", mode="RGB", **options):
    """A file's bytes."""
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def on_its_side():
    """`pixels(8, 8)` as PNG, with metadata that ask for a turn clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(pixels(8, 8), "PNG", exif=exif)


def write_tar(file, members):
    """Writes a tar file of {name: bytes}, and returns its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def prepare(root, name="tiny", version="1.0.0", *, label=True, square=None, **splits):
    """Writes a TFDS folder; each split is a list of (image bytes, label)."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        pkg_dir_path = root

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(square, square, 3)),
                "file_name": tfds.features.Text(),
            }
            if label:
                features["label"] = tfds.features.ClassLabel(names=["ant", "bee", "cat"])
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label") if label else None,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows):
            for index, (image, number) in enumerate(rows):
                example = {"image": image, "file_name": f"{index}.JPEG"}
                yield index, example | ({"label": number} if label else {})

    Builder.name = name
    Builder(data_dir=root).download_and_prepare(file_format="array_record")
    return root / name / version


class Whole:
    """A dataset in memory."""

    def __init__(self, dataset, size):
        self.name, self.class_names = dataset.name, dataset.class_names
        self.num_classes = dataset.num_classes
        self.train, self.test = (
            load_split(source, size=size, num_classes=dataset.num_classes)
            for source in (dataset.train, dataset.test)
        )


def load_dataset(name, data_dir=None):
    """Reads a dataset whose images have one size."""
    dataset = open_dataset(name, data_dir)
    return Whole(dataset, dataset.image_size)
