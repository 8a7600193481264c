"""Measures how fast images are read, decoded and cropped, compared with plain Pillow.

    python -m experiments.benchmark_input --data-dir=/data/tfds --turns=5

Both read the same records of a prepared TFDS dataset and make the same random crops of 224 pixels,
with one thread and with two. Turns alternate; medians and quartiles are over turns. On a shared
machine only the ratios are meaningful.
"""

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from rattn_jax.cli import Parser, errors_on_one_line, positive, working
from rattn_jax.data import open_dataset
from rattn_jax.data.boxes import random_box
from rattn_jax.data.dataset import Dataset, Source
from rattn_jax.data.sampling import training_index
from rattn_jax.data.stream import StreamOptions, crop_draws, training_batches

_SIZE, _AREA, _BATCH_SIZE, _SEED = 224, (0.08, 1.0), 32, 0
_THREADS = (1, 2)

Rates = dict[tuple[str, int], list[float]]  # images a second, by name and number of threads
Loader = Callable[[Source, int, int, int], None]  # (source, classes, images, threads)


def load_ours(source: Source, num_classes: int, num_images: int, num_threads: int) -> None:
    """Reads images as training does."""
    options = StreamOptions(_BATCH_SIZE, _SIZE, num_classes, num_threads)
    steps = range(num_images // _BATCH_SIZE)
    for _ in training_batches(
        source, steps, options, seed=_SEED, crop_area=_AREA, max_bad_examples=0
    ):
        pass


def load_pillow(source: Source, num_classes: int, num_images: int, num_threads: int) -> None:
    """Reads the same crops of the same records with Pillow and a thread pool."""
    del num_classes

    def read(place: int) -> np.ndarray:
        example = source[training_index(_SEED, place, len(source))]
        assert isinstance(example.image, bytes)
        with Image.open(io.BytesIO(example.image)) as image:
            rgb = image.convert("RGB")
            choose = random_box(crop_draws(_SEED, place), _AREA)
            top, left, height, width = choose(rgb.height, rgb.width)
            part = rgb.crop((left, top, left + width, top + height))
            return np.asarray(part.resize((_SIZE, _SIZE), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(num_threads) as threads:
        for start in range(0, num_images, _BATCH_SIZE):
            np.stack(list(threads.map(read, range(start, start + _BATCH_SIZE))))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = Parser("experiments.benchmark_input", __doc__)
    parser.add_argument("--data-dir", help="TFDS's folder (its default)")
    parser.add_argument("--dataset", default="imagenet2012", help="a dataset prepared there")
    parser.add_argument("--turns", type=positive, default=5, help="of each kind (5)")
    parser.add_argument("--images", type=positive, default=512, help="of a turn (512)")
    options = parser.parse(arguments)
    if options.images % _BATCH_SIZE:
        parser.error(f"--images={options.images}: must be a multiple of {_BATCH_SIZE}")
    with errors_on_one_line(parser.prog):
        dataset = open_dataset(options.dataset, options.data_dir)
        with working(f"measuring {options.turns} turns"):
            rates = measure(dataset, options.turns, options.images)
        print(f"{options.dataset}, {options.images} images a turn, {options.turns} turns; images/s")
        print(table(rates))


def measure(dataset: Dataset, num_turns: int, num_images: int) -> Rates:
    """Images a second, by loader and number of threads, in each turn."""
    rates: Rates = {(name, threads): [] for threads in _THREADS for name in _LOADERS}
    for turn in range(-1, num_turns):  # the first one warms the caches
        for (name, threads), found in rates.items():
            start = time.perf_counter()
            _LOADERS[name](dataset.train, dataset.num_classes, num_images, threads)
            if turn >= 0:
                found.append(num_images / (time.perf_counter() - start))
    return rates


def table(rates: Rates) -> str:
    """Medians and quartiles, and ratios to Pillow and to one thread."""
    lines = ["| threads | | median | quartiles | to Pillow | to one thread |"]
    lines.append("|---|---|---|---|---|---|")
    median = {kind: float(np.median(values)) for kind, values in rates.items()}
    for (name, threads), values in rates.items():
        low, high = np.percentile(values, [25, 75])
        here = median[name, threads]
        lines.append(
            f"| {threads} | {name} | {here:.0f} | {low:.0f}-{high:.0f} "
            f"| {here / median['Pillow', threads]:.2f} | {here / median[name, 1]:.2f} |"
        )
    return "\n".join(lines)


_LOADERS: dict[str, Loader] = {"ours": load_ours, "Pillow": load_pillow}


if __name__ == "__main__":
    main()
