"""How fast images are read, decoded and cropped: ours beside plain Pillow.

    python -m experiments.benchmark_input --data_dir=DIR [--dataset=imagenet2012] [--turns=5]

Both read the same records of a prepared TFDS set and cut the same random parts to 224 pixels, with
one thread and with two. Turns alternate, and medians and quartiles are over turns: on a shared
machine only the ratios mean something.
"""

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import app, flags
from PIL import Image

from rattn_jax.data import open_dataset
from rattn_jax.data.dataset import Source
from rattn_jax.data.images import random_box
from rattn_jax.data.sampling import training_index
from rattn_jax.data.stream import StreamOptions, training_batches

_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS's folder.")
_DATASET = flags.DEFINE_string("dataset", "imagenet2012", "A TFDS set that is prepared there.")
_TURNS = flags.DEFINE_integer("turns", 5, "Turns of each kind.", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 512, "Images a turn.", lower_bound=32)

_SIZE, _AREA, _BATCH_SIZE = 224, (0.08, 1.0), 32
_THREADS = (1, 2)

Loader = Callable[[Source, int, int, int], None]  # (source, classes, images, threads)


def load_ours(source: Source, num_classes: int, num_images: int, num_threads: int) -> None:
    """Reads as training does."""
    options = StreamOptions(_BATCH_SIZE, _SIZE, num_classes, num_threads)
    steps = range(num_images // _BATCH_SIZE)
    for _ in training_batches(source, steps, options, seed=0, crop_area=_AREA, max_bad_examples=0):
        pass


def load_pillow(source: Source, num_classes: int, num_images: int, num_threads: int) -> None:
    """The same records and parts, with Pillow and a pool of threads."""
    del num_classes
    draws = np.random.RandomState(0).random_sample((num_images, 10, 4))

    def read(place: int) -> np.ndarray:
        example = source[training_index(0, place, len(source))]
        assert isinstance(example.image, bytes)
        with Image.open(io.BytesIO(example.image)) as image:
            rgb = image.convert("RGB")
            choose = random_box(draws[place], _AREA)
            top, left, height, width = choose(rgb.height, rgb.width)
            part = rgb.crop((left, top, left + width, top + height))
            return np.asarray(part.resize((_SIZE, _SIZE), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(num_threads) as threads:
        for start in range(0, num_images, _BATCH_SIZE):
            np.stack(list(threads.map(read, range(start, start + _BATCH_SIZE))))


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    dataset = open_dataset(_DATASET.value, _DATA_DIR.value)
    loaders: dict[str, Loader] = {"ours": load_ours, "Pillow": load_pillow}
    kinds = [(name, threads) for threads in _THREADS for name in loaders]
    rates: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
    for turn in range(-1, _TURNS.value):  # the first one warms the caches
        for name, threads in kinds:
            start = time.perf_counter()
            loaders[name](dataset.train, dataset.num_classes, _IMAGES.value, threads)
            if turn >= 0:
                rates[name, threads].append(_IMAGES.value / (time.perf_counter() - start))

    print(f"{_DATASET.value}, {_IMAGES.value} images a turn, {_TURNS.value} turns; images/s")
    print(
        "| threads | | median | quartiles | to Pillow | to one thread |\n|---|---|---|---|---|---|"
    )
    median = {kind: float(np.median(values)) for kind, values in rates.items()}
    for name, threads in kinds:
        low, high = np.percentile(rates[name, threads], [25, 75])
        here = median[name, threads]
        print(
            f"| {threads} | {name} | {here:.0f} | {low:.0f}-{high:.0f} "
            f"| {here / median['Pillow', threads]:.2f} | {here / median[name, 1]:.2f} |"
        )


if __name__ == "__main__":
    app.run(main)
