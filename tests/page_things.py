"""What the pages speak of, small and made on the spot: images, archives, data."""

import json
import shutil
from pathlib import Path

import tensorflow_datasets as tfds
from PIL import Image

from rattn_jax import prepare
from rattn_jax.data import open_dataset
from tests.data.cifar_archives import cifar_archive
from tests.data.images import encode, pixels, write_tar
from tests.data.test_folder import make_folder
from tests.pages import ROOT


def put_things(line, folder, finished, monkeypatch):
    """Puts the things that a line names into a folder, which is the current one from here on.

    Args:
        line: the command, or some Python.
        folder: where to put them.
        finished: folder of a finished run, which is copied, unless the line is what trains it.
        monkeypatch: of the test.
    """
    monkeypatch.chdir(folder)
    for name in ("configs", "examples", "main.py"):
        Path(name).symlink_to(ROOT / name)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder / "tensorflow_datasets"))
    for name in ("cifar100", "cifar10"):  # a builder of the former takes after one of the latter
        cifar_archive(name, monkeypatch).put(folder / "tensorflow_datasets/downloads")
    _put_image(Path("photo.jpg"))
    for thing, put in _THINGS.items():
        if thing in line:
            put(Path(thing.rpartition("=/")[2]))
    is_training = line.startswith(("rattn train", "python main.py", "rattn selftest"))
    for run in ("runs/mine", "runs/other", "runs/a", "runs/b", "RUN"):
        if run in line and not (is_training and f"--workdir={run}" in line):
            shutil.copytree(finished, run)


def _put_image(file):
    Image.fromarray(pixels()).save(file)


def _put_images(folder):
    make_folder(folder, count=12)
    files = sorted(folder.glob("*/cat/*"))
    rows = [
        {"file_name": f"{file.relative_to(folder)}", "label": ["cat", "indoors"][: 1 + i % 2]}
        for i, file in enumerate(files)
    ]
    (folder / "labels.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _put_photos(folder):
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.jpg").write_bytes(encode(pixels(seed=seed)))


def _put_cifar(folder):
    """CIFAR-10, prepared: a process of its own would not take the archive for the published one."""
    shutil.copytree("tensorflow_datasets", folder)
    open_dataset("cifar10", str(folder))


def _put_training_archive(file):
    inner = {}
    for number, name in enumerate(("n01440764", "n01443537")):
        images = {f"{name}_{i}.JPEG": encode(pixels(seed=10 * number + i)) for i in range(8)}
        inner[f"{name}.tar"] = write_tar(file.with_name(f"{name}.tar"), images).read_bytes()
    write_tar(file, inner)


def _put_validation_archive(file):
    images = {f"ILSVRC2012_val_{i:08}.JPEG": encode(pixels(seed=i)) for i in (1, 2, 3)}
    write_tar(file, images)


def _put_imagenet(folder):
    archives = Path("train.tar"), Path("validation.tar")
    _put_training_archive(archives[0])
    _put_validation_archive(archives[1])
    files = [f"--{file.stem}={file}" for file in archives]
    prepare.main(["imagenet", *files, f"--out={folder}"])


_THINGS = {
    "images": _put_images,
    "photos": _put_photos,
    "folder/": _put_photos,
    "blacklist.txt": lambda file: file.write_text("2\n"),  # ILSVRC2012_val_00000002.JPEG
    "DATA": _put_cifar,
    "ILSVRC2012_img_train.tar": _put_training_archive,
    "ILSVRC2012_img_val.tar": _put_validation_archive,
    "data_dir=/data/tfds": _put_imagenet,
}
