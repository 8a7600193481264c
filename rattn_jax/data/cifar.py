"""Prepares CIFAR-10 and CIFAR-100 with tensorflow-datasets (TFDS), without TensorFlow.

Download, checksums, atomic preparation, features and file format are TFDS's, and the result is an
ordinary TFDS folder, which `tfds.builder("cifar10", file_format="array_record")` opens. Only the
reading of the original archive is done here, because TFDS does that through `tf.io.gfile`.
"""

import contextlib
import fnmatch
import io
import sys
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from PIL import Image
from tensorflow_datasets.core.download import download_manager, resource
from tensorflow_datasets.core.utils import tqdm_utils
from tensorflow_datasets.image_classification import cifar as tfds_cifar

from rattn_jax.data.tfds import FILE_FORMAT, check_prepared, damaged, one_line, tfds_root
from rattn_jax.errors import UsageError

_TIMEOUT_SECONDS = 20.0  # for the server's first answer


# mypy does not know the keyword, which TFDS takes in __init_subclass__.
class Cifar10(tfds_cifar.Cifar10, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's CIFAR-10 builder with the reading of the archive replaced.

    It is not registered: TFDS's own class keeps the name "cifar10", and takes what this one wrote.
    """

    # TFDS looks for checksums next to the file that defines the class.
    url_infos = tfds_cifar.Cifar10.url_infos

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        layout = self._cifar_info
        files = _read_archive(dl_manager.download(layout.url))
        for key, file in zip(layout.label_keys, layout.label_files, strict=True):
            lines = files[layout.prefix + file].decode().splitlines()
            self.info.features[key].names = [line for line in lines if line]
        return {
            split: self._generate_examples(
                f"{split}_", b"".join(files[layout.prefix + file] for file in split_files)
            )
            for split, split_files in (("train", layout.train_files), ("test", layout.test_files))
        }

    def _generate_examples(
        self, split_prefix: str, records: bytes
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields TFDS's keys and examples from records of label bytes and 3x32x32 pixels."""
        label_keys = self._cifar_info.label_keys
        table = np.frombuffer(records, np.uint8).reshape(-1, len(label_keys) + 3 * 32 * 32)
        for index, record in enumerate(table):
            pixels = record[len(label_keys) :].reshape(3, 32, 32).transpose(1, 2, 0)
            png = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels)).save(png, format="PNG")
            example = dict(zip(label_keys, record[: len(label_keys)].tolist(), strict=True))
            # Given encoded bytes, TFDS stores them as they are; given an array, it would call
            # TensorFlow to encode it.
            yield index, example | {"id": f"{split_prefix}{index:05d}", "image": png.getvalue()}

    # TFDS prints these two messages to stdout, whatever the verbosity.
    def _log_download_bytes(self) -> None:
        logging.info("downloading and preparing %s in %s", self.name, self.data_dir)

    def _log_download_done(self) -> None:
        logging.info("prepared %s in %s", self.name, self.data_dir)


class Cifar100(  # type: ignore[call-arg]  # as above
    Cifar10, tfds_cifar.Cifar100, skip_registration=True
):
    """TFDS's CIFAR-100 builder, likewise."""

    url_infos = tfds_cifar.Cifar100.url_infos


BUILDERS = {"cifar10": Cifar10, "cifar100": Cifar100}


def open_cifar(name: str, data_dir: str | None) -> Cifar10:
    """A builder for reading CIFAR, which is prepared on first use.

    Data that is prepared in `data_dir` is taken as it is. Otherwise the archive is taken from
    `data_dir`/downloads or `data_dir`/downloads/manual if it was put there under its own name, from
    TFDS's download cache, or from the network, in this order; its checksum is verified.

    Args:
        name: "cifar10" or "cifar100"; the labels of the latter are the 100 fine classes.
        data_dir: TFDS's folder; None for TFDS's default ($TFDS_DATA_DIR or
            ~/tensorflow_datasets).

    Raises:
        UsageError: neither prepared data nor archive nor network; an archive or a prepared folder
            that is damaged or of another format; a folder that cannot be read or written.
    """
    root = tfds_root(data_dir)
    builder_class = BUILDERS[name]
    folder = root / name / str(builder_class.VERSION)
    try:
        if not folder.exists():
            _prepare(builder_class(data_dir=root), folder)
    except OSError as error:
        # Of several processes that prepare at the same time, one wins and the others fail to
        # rename their result; the winner's is whole.
        lost_race = isinstance(error, FileExistsError) and folder.exists()
        if not lost_race:
            raise UsageError(
                f"cannot prepare {name} in data_dir {root} ({one_line(error)}): choose a data_dir "
                "that can be written and has 500 MB free"
            ) from error
    try:
        builder = builder_class(data_dir=root)
    except Exception as error:  # TFDS and protobuf have each their own
        raise damaged(folder, error) from error
    return check_prepared(builder)


def _prepare(builder: Cifar10, folder: epath.Path) -> None:
    """Downloads the archive unless it is there, and writes `folder`."""
    url = builder._cifar_info.url
    published = builder.url_infos[url]
    downloads = builder.data_dir_root / "downloads"
    manual = downloads / "manual"
    downloads.mkdir(parents=True, exist_ok=True)
    place = next((p for p in (downloads, manual) if (p / published.filename).exists()), None)
    try:
        if place is None and not _is_cached(builder.name, downloads, url, published):
            # Ask first: without network, TFDS would retry for minutes and without a timeout.
            with requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS) as response:
                response.raise_for_status()
        with _progress_bars_only_on_terminals():
            builder.download_and_prepare(
                file_format=FILE_FORMAT,
                download_config=tfds.download.DownloadConfig(
                    manual_dir=place, force_checksums_validation=True
                ),
            )
    except (requests.RequestException, tfds.download.DownloadError) as error:
        there = [path.name for path in folder.parent.iterdir()] if folder.parent.exists() else []
        others = sorted(fnmatch.filter(there, "[0-9]*.[0-9]*.[0-9]*"))
        other = f" (only version {', '.join(others)}, not {folder.name})" if others else ""
        raise UsageError(
            f"{builder.name} is not prepared in {builder.data_dir_root}{other} and cannot be "
            f"downloaded ({one_line(error)}): fetch {url} elsewhere, put {published.filename} "
            f"into {downloads} or {manual}, and run again"
        ) from None
    except download_manager.NonMatchingChecksumError:
        archive = f"archive {place / published.filename}" if place else f"download of {url}"
        remedy = "remove it, fetch it again and run again" if place else "run again"
        raise UsageError(
            f"the {archive} has the wrong checksum: must be {published.size} bytes with SHA-256 "
            f"{published.checksum}; {remedy}"
        ) from None


def _is_cached(name: str, downloads: epath.Path, url: str, published: Any) -> bool:
    """Whether an earlier download of TFDS's is there, under the name that TFDS gave it."""
    file = resource.get_dl_fname(url, published.checksum)
    return any(resource.is_locally_cached(place / file) for place in (downloads, downloads / name))


def _read_archive(archive: epath.Path) -> dict[str, bytes]:
    """All files of a tar.gz by their path; CIFAR's 180 MB are read in one pass."""
    try:
        with archive.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:gz") as tar:
            members = ((member.name, tar.extractfile(member)) for member in tar)
            return {name: file.read() for name, file in members if file is not None}
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UsageError(
            f"the archive {archive} is damaged ({one_line(error)}): remove it and run again"
        ) from error


@contextlib.contextmanager
def _progress_bars_only_on_terminals() -> Iterator[None]:
    """Keeps TFDS's progress bars out of log files, and its global switch as the user set it."""
    enabled = tqdm_utils._active  # TFDS has no public way to ask
    tfds.display_progress_bar(enabled and sys.stderr.isatty())
    try:
        yield
    finally:
        tfds.display_progress_bar(enabled)
