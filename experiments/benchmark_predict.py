"""Measures how fast a folder of images is predicted, beside the network alone.

    python -m experiments.benchmark_predict --pretrained=attention56_digits --images=5000 --side=32

Writes JPEG files into a temporary folder. `network` computes batches that are in memory; `predict`
reads and decodes the files ahead of it, as `rattn predict` does, and writes rows of JSON. Turns
alternate; medians are over turns. On a shared machine only the ratio is meaningful.
"""

import io
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from rattn_jax.cli import Parser, add_workdir, errors_on_one_line, positive, set_up_process, working
from rattn_jax.inference.image_inputs import ImageInput
from rattn_jax.inference.network import Classifier, load
from rattn_jax.inference.prediction_table import Row, write
from rattn_jax.inference.stream import predict_each

_DIFFERENT = 100  # pictures; the others are copies


def encoded_images(side: int) -> list[bytes]:
    """Different JPEG files with smooth content, as photos have it."""
    generator, encoded = np.random.RandomState(0), []
    for _ in range(_DIFFERENT):
        coarse = Image.fromarray(generator.randint(0, 256, (4, 4, 3)).astype(np.uint8))
        buffer = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


def write_images(folder: epath.Path, count: int, side: int) -> list[ImageInput]:
    """Writes JPEG files."""
    encoded = encoded_images(side)
    files = [folder / f"{i}.jpg" for i in range(count)]
    for i, file in enumerate(files):
        file.write_bytes(encoded[i % _DIFFERENT])
    return [ImageInput(str(file)) for file in files]


def predict_files(network: Classifier, inputs: Sequence[ImageInput], batch_size: int) -> None:
    """Reads, decodes and predicts all, and formats the rows."""

    def rows() -> Sequence[Row]:
        found = predict_each(network, inputs, batch_size=batch_size)
        return [
            (name, network.most_probable(row, 5))
            for name, row in found
            if isinstance(row, np.ndarray)
        ]

    write("jsonl", rows(), io.StringIO(), top=5)


def predict_memory(network: Classifier, batch: np.ndarray, count: int) -> None:
    """Predicts as many images, which are decoded already."""
    for _ in range(0, count, len(batch)):
        network.predict_decoded(batch, len(batch))


def rate(count: int, function: Callable[..., None], *arguments: Any) -> float:
    """Images a second."""
    start = time.perf_counter()
    function(*arguments)
    return count / (time.perf_counter() - start)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints both speeds and their ratio."""
    set_up_process()
    parser = Parser("experiments.benchmark_predict", __doc__)
    add_workdir(parser)
    parser.add_argument("--images", type=positive, default=5000, help="number of files (5000)")
    parser.add_argument("--side", type=positive, default=32, help="of the images in pixels (32)")
    parser.add_argument("--batch-size", type=positive, default=64)
    parser.add_argument("--turns", type=positive, default=5)
    options = parser.parse(arguments)
    with errors_on_one_line(parser.prog), working("measuring"), tempfile.TemporaryDirectory() as d:
        network, size = load(options.workdir, options.step), options.batch_size
        inputs = write_images(epath.Path(d), options.images, options.side)
        batch = np.stack([network.decode(image.read()) for image in inputs[:size]])
        network.predict_decoded(batch, size)  # compiles
        alone, whole = [], []
        for _ in range(options.turns):
            alone.append(rate(options.images, predict_memory, network, batch, options.images))
            whole.append(rate(options.images, predict_files, network, inputs, size))
    print(f"network {np.median(alone):,.0f} images/s, predict {np.median(whole):,.0f} images/s")
    print(f"predict / network: {np.median(np.divide(whole, alone)):.0%}")


if __name__ == "__main__":
    main()
