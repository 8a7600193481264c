"""Small CIFAR archives in the original binary format, taken for the published ones."""

import dataclasses
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.core.download.checksums import UrlInfo

from rattn_jax.data import cifar
from tests.data.images import Whole

FILENAMES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}
COUNTS = {"train": 20, "test": 6}


@dataclasses.dataclass(eq=False)
class Archive:
    """An archive of random images. Every image is different and so identifies its example."""

    name: str
    class_names: tuple[str, ...]
    images: dict[str, np.ndarray]  # by split, uint8 [N, 32, 32, 3]
    labels: dict[str, np.ndarray]  # by split, uint8 [N, label bytes], the class last
    content: bytes  # tar.gz
    monkeypatch: pytest.MonkeyPatch

    @property
    def filename(self) -> str:
        return FILENAMES[self.name]

    def put(self, folder: Path) -> Path:
        """Writes the archive into `folder` under its published name."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.filename).write_bytes(self.content)
        return folder / self.filename

    def publish(self, host: str) -> None:
        """Makes the data package expect this archive, at a URL on `host`."""
        builder = cifar.BUILDERS[self.name]
        url = f"{host}/{self.filename}"
        checksum = hashlib.sha256(self.content).hexdigest()
        layout = builder(data_dir="/nonexistent")._cifar_info._replace(url=url)
        self.monkeypatch.setattr(builder, "_cifar_info", layout)
        self.monkeypatch.setattr(
            builder, "url_infos", {url: UrlInfo(len(self.content), checksum, self.filename)}
        )

    def check(self, dataset: Whole) -> None:
        """Asserts that `dataset` holds each example once, with its pixels and class."""
        assert dataset.name == self.name
        assert dataset.class_names == self.class_names
        for split_name, split in (("train", dataset.train), ("test", dataset.test)):
            position = {image.tobytes(): i for i, image in enumerate(self.images[split_name])}
            order = [position.pop(image.tobytes()) for image in split.images]
            assert not position
            np.testing.assert_array_equal(split.labels, self.labels[split_name][order, -1])


def _tar(prefix: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    # Without the time of day, so that every process makes the same bytes.
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for file, content in files.items():
            member = tarfile.TarInfo(prefix + file)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def cifar_archive(name: str, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """The archive of "cifar10" or "cifar100", which the data package expects from now on."""
    rng = np.random.default_rng(0)
    images, labels, records = {}, {}, {}
    for split, count in COUNTS.items():
        images[split] = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        fine = rng.integers(0, 10 if name == "cifar10" else 100, (count, 1), np.uint8)
        labels[split] = fine if name == "cifar10" else np.concatenate([fine // 5, fine], axis=1)
        planes = images[split].transpose(0, 3, 1, 2).reshape(count, 3072)
        records[split] = np.concatenate([labels[split], planes], axis=1)
    if name == "cifar10":
        class_names = tuple(f"class {i}" for i in range(10))
        batches = np.split(records["train"], 5)
        files = {f"data_batch_{i + 1}.bin": batch.tobytes() for i, batch in enumerate(batches)}
        files["test_batch.bin"] = records["test"].tobytes()
        files["batches.meta.txt"] = ("\n".join(class_names) + "\n\n").encode()
        content = _tar("cifar-10-batches-bin/", files)
    else:
        class_names = tuple(f"fine {i}" for i in range(100))
        files = {f"{split}.bin": records[split].tobytes() for split in COUNTS}
        files["fine_label_names.txt"] = "".join(f"{fine}\n" for fine in class_names).encode()
        files["coarse_label_names.txt"] = "".join(f"coarse {i}\n" for i in range(20)).encode()
        content = _tar("cifar-100-binary/", files)
    archive = Archive(name, class_names, images, labels, content, monkeypatch)
    archive.publish("http://127.0.0.1:1")  # nothing listens there: as without network
    return archive
