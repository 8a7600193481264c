"""Writes a dataset in TFDS's format (array_record) on several threads, without TensorFlow.

folder = prepare(Content("photos", "1.0.0", class_names, {"train": train, "test": test}), root)

The examples of a split are shuffled once and for all, and divided into files of about a thousand.
A file that is complete has its name, so a preparation that was stopped goes on with the others. The
dataset's folder gets its name when everything is written.
"""

import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import example_serializer, file_adapters

from rattn_jax.config.paths import path_of
from rattn_jax.data.dataset import Example, Source
from rattn_jax.data.stored_image import stored_image
from rattn_jax.data.tfds import FILE_FORMAT, one_line
from rattn_jax.errors import UsageError

_EXAMPLES_IN_A_FILE = 1_252  # 1,024 files of ImageNet's training images, as TFDS writes
_PLAN = "plan.json"

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Content:
    """What is written.

    Attributes:
        name: name of the dataset, of lower-case letters, digits and underscores.
        version: version of the dataset, such as "1.0.0".
        class_names: names of the classes, in the order of the labels.
        splits: examples by the names of the splits.
        shorter_side: larger images are scaled down to this height or width, in pixels; None: none
            are.
        only_jpeg: whether all images are JPEG files, as in ImageNet.
        description: text for TFDS.
        contents: a hash that differs where images of the same names do.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Source]
    shorter_side: int | None = None
    only_jpeg: bool = False
    description: str = ""
    contents: str = ""


class _File(NamedTuple):
    """A file of a split: its name, the positions of its examples, and whether it is complete."""

    path: epath.Path
    split: str
    positions: np.ndarray


def prepare(
    content: Content, root: epath.PathLike, *, threads: int, say: Say, progress: Say
) -> epath.Path:
    """Writes the dataset, or what is left of it.

    Images are stored as they are, except for those that are larger than `shorter_side`, whose
    metadata (EXIF) asks for a rotation, or that readers of TFDS cannot read: they are written anew,
    as PNG if they were stored without loss, and else as JPEG of quality 95. An image that cannot be
    decoded is left out, with a line.

    Args:
        content: what to write.
        root: TFDS's folder, local.
        threads: number of threads.
        say: called with lines about images that are left out.
        progress: called with how far it is.

    Returns:
        The dataset's folder, ROOT/NAME/VERSION.

    Raises:
        UsageError: the folder cannot be written, has too little space, or holds a preparation of
            other images or in another way; or an image cannot be read now that may be later.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", content.name):
        raise UsageError(
            f"--name={content.name}: must be lower-case letters, digits and underscores, and begin "
            "with a letter"
        )
    for name in content.class_names:
        if not _is_utf_8(name):
            raise UsageError(
                f"the class {name!a} has a name that is not UTF-8, as TFDS's must be: rename it"
            )
        if name != name.strip() or len(name.splitlines()) != 1:
            raise UsageError(
                f"the class {name!r} has a name with line breaks, or blanks around it, which TFDS "
                "does not keep: rename it"
            )
    root = path_of(root)
    folder = root / content.name / content.version
    if folder.exists():
        raise UsageError(
            f"{folder} is there already: remove it to prepare it anew, or choose another --out"
        )
    unfinished = root / content.name / f"incomplete.{content.version}"
    files = list(_files(content, unfinished))
    try:
        _begin(content, unfinished, files)
        counts = _write_all(content, files, threads, say, progress)
        _write_metadata(content, unfinished, files, counts)
        (unfinished / _PLAN).unlink()
        unfinished.rename(folder)
    except OSError as error:
        raise UsageError(
            f"{unfinished} cannot be written ({one_line(error)}): free space or choose another "
            "--out; run again, and it goes on"
        ) from error
    return folder


def _is_utf_8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # as Python reads other bytes in the name of a file
        return False
    return True


def _files(content: Content, folder: epath.Path) -> Iterator[_File]:
    """The files of all splits, with equal numbers of examples in an order drawn with seed 0."""
    for split, source in content.splits.items():
        order = np.random.Generator(np.random.PCG64(0)).permutation(len(source))
        parts = np.array_split(order, -(-len(source) // _EXAMPLES_IN_A_FILE))
        for number, positions in enumerate(parts):
            place = f"{number:05d}-of-{len(parts):05d}"
            yield _File(folder / f"{content.name}-{split}.{FILE_FORMAT}-{place}", split, positions)


def _begin(content: Content, folder: epath.Path, files: Sequence[_File]) -> None:
    """Makes the folder, or checks that the one that is there is to become the same dataset."""
    digest = hashlib.sha256()
    for split, source in content.splits.items():
        digest.update(f"{split} {len(source)}\n".encode())
        digest.update(np.ascontiguousarray(source.labels()).tobytes())
        for position in range(len(source)):
            file_name = source.name(position).rpartition("/")[2]
            digest.update(f"{file_name}\n".encode(errors="surrogateescape"))
    plan = {
        "images": digest.hexdigest(),
        "class_names": list(content.class_names),
        "shorter_side": content.shorter_side,
        "files": len(files),
        "contents": content.contents,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _PLAN
    if not path.exists():
        begun = folder / f"writing-{_PLAN}"
        begun.write_text(json.dumps(plan))
        begun.rename(path)
        return
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is damaged: remove {folder}, and begin anew") from error
    if plan | before != plan:  # an older one has no "contents"
        raise UsageError(
            f"{folder} is half of a preparation of other images, or with another --shorter-side: "
            "remove it, or go on with those"
        )


def _write_all(
    content: Content, files: Sequence[_File], threads: int, say: Say, progress: Say
) -> list[tuple[int, int]]:
    """Writes the files that are missing; returns the examples and bytes of each."""
    features = _features(content)
    stopped, lock = threading.Event(), threading.Lock()
    total = sum(len(file.positions) for file in files)
    done = 0

    def count() -> None:
        nonlocal done
        if stopped.is_set():
            raise KeyboardInterrupt
        with lock:
            done += 1
        progress(f"{done:,} of {total:,} images")

    def write(file: _File) -> tuple[int, int]:
        nonlocal done
        if not file.path.exists():
            _write(content, features, file, count, say)
        else:
            with lock:
                done += len(file.positions)
        return len(_records(file.path)), file.path.stat().length

    pool = ThreadPoolExecutor(threads)
    tasks = [pool.submit(write, file) for file in files]
    try:
        for task in as_completed(tasks):
            task.result()
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
    return [task.result() for task in tasks]


def _write(
    content: Content, features: Any, file: _File, count: Callable[[], None], say: Say
) -> None:
    """Writes a file under another name, reads it back, and gives it its name."""
    source = content.splits[file.split]
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    digests = []

    def records() -> Iterator[tuple[int, bytes]]:
        for position in file.positions:
            try:
                example = _read(source, int(position))
                image = stored_image(example, content.shorter_side, only_jpeg=content.only_jpeg)
            except UsageError:
                raise
            except MemoryError as error:
                raise UsageError(
                    f"the memory does not suffice for {source.name(int(position))}: use fewer "
                    "--threads; run again, and it goes on"
                ) from error
            except Exception as error:  # of many kinds: whatever is found in a file
                say(f"left out: {source.name(int(position))} ({one_line(error)})")
                continue
            finally:
                count()
            file_name = example.file_name.encode(errors="backslashreplace")
            values = {"image": image, "label": example.label, "file_name": file_name}
            record = serializer.serialize_example(features.encode_example(values))
            digests.append(hashlib.sha256(record).digest())
            yield int(position), record

    begun = file.path.parent / f"writing-{file.path.name}"
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]
    try:
        adapter.write_examples(begun, records())
        read_back = [hashlib.sha256(record).digest() for record in _records(begun)]
    except RuntimeError as error:  # of array_record
        raise OSError(*error.args) from error
    if read_back != digests:
        raise UsageError(
            f"{begun} reads back otherwise than it was written: check the disk, and run again"
        )
    begun.rename(file.path)


def _read(source: Source, position: int) -> Example:
    """Reads an example.

    Raises:
        UsageError: it may be readable later, so that it must not be left out for good.
    """
    try:
        return source[position]
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise UsageError(
            f"{source.name(position)} cannot be read ({one_line(error)}): run again, and it goes "
            "on, or remove it"
        ) from error


def _records(path: epath.Path) -> Any:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource([str(path)])


def _features(content: Content) -> Any:
    encoding = "jpeg" if content.only_jpeg else None
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format=encoding),
            "label": tfds.features.ClassLabel(names=list(content.class_names)),
            "file_name": tfds.features.Text(),
        }
    )


def _write_metadata(
    content: Content,
    folder: epath.Path,
    files: Sequence[_File],
    counts: Sequence[tuple[int, int]],
) -> None:
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=content.name, filetype_suffix=FILE_FORMAT
    )
    splits = []
    for split in content.splits:
        own = [count for file, count in zip(files, counts, strict=True) if file.split == split]
        lengths, sizes = zip(*own, strict=True)
        named = template.replace(split=split)
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=list(lengths),
                num_bytes=sum(sizes),
                filename_template=named,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=_features(content),
        split_infos=splits,
        version=content.version,
        check_data=False,  # with TensorFlow
        supervised_keys=("image", "label"),
        description=content.description,
    )
