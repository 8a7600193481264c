"""The images that a command line names: files, folders, patterns, URLs, and standard input.

inputs = find_inputs(["photos/", "more/*.jpg", "-"], LeftOut(), stdin=sys.stdin)
inputs[0].read()                 # bytes, for `Classifier.decode`
"""

import dataclasses
import functools
import glob
import io
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import TextIO

from etils import epath
from PIL import Image

from rattn_jax.data.decoding import FORMATS
from rattn_jax.data.image_files import LeftOut, find_images, images_below, is_image, real_path
from rattn_jax.errors import UsageError
from rattn_jax.inference.download import download, is_url

STANDARD_INPUT = "-"


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """An image that can be read.

    Attributes:
        name: its path, its URL, or "-" for standard input.
        data: its bytes, if they are here already.
        seconds: that a download may take; None for what is no URL.
    """

    name: str
    data: bytes | None = None
    seconds: float | None = None

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            OSError: it cannot be read.
            BadImageError: see `download`.
        """
        if self.data is not None:
            return self.data
        if self.seconds is not None:
            return download(self.name, self.seconds)
        if "://" in self.name:
            try:
                return bytes(epath.Path(self.name).read_bytes())
            except KeyError as error:
                raise OSError(f"{error} is no object store") from error
            except OSError:
                raise
            except Exception as error:  # libraries of object stores can raise anything
                reason = str(error) or type(error).__name__
                raise OSError(" ".join(reason.split())) from error
        with open(self.name, "rb") as file:  # a third of the time that epath takes
            return file.read()


def find_inputs(
    arguments: Sequence[str],
    left_out: LeftOut,
    *,
    stdin: TextIO | None,
    url_seconds: float | None = None,
) -> list[ImageInput]:
    """Lists images in the order of the arguments, and in alphabetical order below each.

    Standard input, "-", is an image if it begins like one, and otherwise a list with a path or a
    URL on each line (or, as of `find -print0`, ended by a zero byte).

    Args:
        arguments: files, folders, patterns such as "a/*.jpg" and "**/*.png", URLs, or "-".
        left_out: counts what is left out of folders and patterns.
        stdin: standard input; None if it is closed.
        url_seconds: that each download may take; None refuses URLs.

    Raises:
        UsageError: there is no such file or no image, or a URL is refused.
    """

    def found(argument: str) -> Iterator[ImageInput]:
        if is_url(argument):
            if url_seconds is None:
                raise UsageError(
                    f"{argument[:80]} is a URL, and none is fetched unasked: add --urls"
                )
            yield ImageInput(argument, seconds=url_seconds)
        else:
            yield from (ImageInput(str(path)) for path in _paths(argument, left_out))

    def listed(data: bytes) -> Iterator[ImageInput]:
        text = os.fsdecode(data)
        for line in text.split("\0") if "\0" in text else re.split(r"\r?\n", text):
            if is_url(line) or os.path.isdir(line):
                yield from found(line)
            elif line:  # a missing one is reported when its turn comes
                yield ImageInput(line)

    inputs: list[ImageInput] = []
    for argument in arguments:
        if argument != STANDARD_INPUT:
            inputs += found(argument)
            continue
        data = stdin.buffer.read() if stdin else b""
        new = [ImageInput(STANDARD_INPUT, data)] if _is_image(data) else [*listed(data)]
        if not new:
            raise UsageError("- names no image: give an image or a list of paths on standard input")
        inputs += new
    return inputs


def _is_image(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data), formats=tuple(FORMATS)).close()
    except Exception:  # a damaged file can raise anything
        return False
    return True


def _paths(argument: str, left_out: LeftOut) -> list[epath.Path]:
    """The images of a file, a folder or, where there is neither, a pattern."""
    is_pattern = glob.has_magic(argument) and "://" not in argument
    if not is_pattern or os.path.lexists(argument):
        return find_images([argument], left_out)
    images = _matches(argument, left_out)
    if not images:
        raise UsageError(f"{argument}: the pattern matches no image; correct it")
    return images


def _matches(pattern: str, left_out: LeftOut) -> list[epath.Path]:
    """The images that a pattern matches, and those below the folders that it matches."""
    images: dict[str, epath.Path] = {}  # by their place
    read: set[str] = set()
    real_folder = functools.cache(real_path)

    def place_of(path: epath.Path) -> str:
        """The path without links to folders; a link to a file is one of its own."""
        return f"{real_folder(path.parent)}/{path.name}"

    for path in map(epath.Path, sorted(glob.glob(pattern, recursive=True))):
        is_folder = os.path.isdir(path)
        place = real_path(path) if is_folder else place_of(path)
        # "**" matches a folder, and what is in it, also by links.
        if not read.isdisjoint((*_lineage(str(path)), *_lineage(place))):
            continue
        read |= {str(path), place}
        if is_folder:
            for image in images_below(path, left_out):
                images.setdefault(place_of(image), image)
        elif is_image(path):
            images.setdefault(place, path)
        else:
            left_out.add(path.suffix.lower() or "without suffix", path.name)
    return list(images.values())


def _lineage(path: str) -> Iterator[str]:
    """A path, and the folders above it."""
    return itertools.accumulate(path.split("/"), "{}/{}".format)
