"""A trained network, read from the folder of its run.

network = rattn_jax.load("runs/digits")
network.predict(["a.png", "b.jpg"])        # probabilities, float32 [2, classes]
network.class_names                        # ("0", "1", ...)
"""

import dataclasses
import os
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from etils import epath
from PIL import Image

from rattn_jax.config.schema import SIGMOID, split_place
from rattn_jax.data.batches import normalize
from rattn_jax.data.boxes import center_box
from rattn_jax.data.crops import load_crop
from rattn_jax.data.decoding import to_rgb, to_upright_rgb
from rattn_jax.errors import UsageError
from rattn_jax.models import folding
from rattn_jax.models.attention import ModuleMaps, in_order, read_maps
from rattn_jax.parallel.mesh import find_devices
from rattn_jax.runs.best import LAST
from rattn_jax.runs.saved_run import SavedRun, read_saved_run

Array = jax.Array
AnyImage = str | os.PathLike[str] | bytes | np.ndarray | Image.Image


class Classifier(SavedRun):
    """A trained classifier: its predictions and its attention maps.

    Its attributes are those of `SavedRun`.
    """

    def with_data_dir(self, data_dir: str | None) -> "Classifier":
        """The same network with its dataset elsewhere; None changes nothing.

        Args:
            data_dir: TFDS's folder or, if the dataset is one's own, where that lies.
        """
        if data_dir is None:
            return self
        config = dataclasses.replace(self.config, data_dir=data_dir)
        if kind := split_place(config.dataset.name)[0]:
            dataset = dataclasses.replace(config.dataset, name=kind + data_dir)
            config = dataclasses.replace(config, dataset=dataset)
        return dataclasses.replace(self, config=config)

    def decode(self, image: AnyImage) -> np.ndarray:
        """Decodes and crops an image as in evaluation: uint8 [image_size, image_size, 3].

        A rotation in the metadata (EXIF) is applied, unless the run was started before it was.

        Args:
            image: a path; an encoded file; uint8 [H, W, 3]; or a Pillow image.

        Raises:
            BadImageError: the file is damaged, no image, or too large.
            OSError: it cannot be read.
        """
        exact = self.config.dataset.exact_pixels
        if isinstance(image, bytes):
            pixels: bytes | np.ndarray = image
        elif isinstance(image, Image.Image):
            pixels = to_upright_rgb(image) if exact else to_rgb(image)
        elif isinstance(image, np.ndarray):
            pixels = image
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise UsageError(
                    f"image is {image.dtype} {list(image.shape)}: must be uint8 [H, W, 3]"
                )
        else:
            pixels = epath.Path(image).read_bytes()
        box = center_box(self.crop_fraction)
        return load_crop(pixels, box, self.image_size, exact=exact, upright=True)

    def predict(
        self, images: np.ndarray | Sequence[AnyImage], *, batch_size: int = 64
    ) -> np.ndarray:
        """Probabilities of the classes, float32 [B, classes].

        Args:
            images: uint8 [B, H, W, 3], or a list of what `decode` takes; of any sizes.
            batch_size: maximum number of images per batch. Each new size is compiled once.

        Raises:
            UsageError: `images` is a single image.
            BadImageError, OSError: see `decode`.
        """
        if isinstance(images, str | bytes | os.PathLike | Image.Image):
            raise UsageError(f"images={images!r:.60} is a single image: must be a list, [image]")
        size = min(batch_size, len(images))
        rows = [
            self.predict_decoded(
                np.stack([self.decode(image) for image in images[start : start + size]]), size
            )
            for start in range(0, len(images), max(size, 1))
        ]
        return np.concatenate([np.zeros((0, len(self.class_names)), np.float32), *rows])

    def predict_decoded(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Probabilities of up to `batch_size` images from `decode`, padded to that number."""
        return np.asarray(self.start(images, batch_size))[: len(images)]

    def start(self, images: np.ndarray, batch_size: int) -> Array:
        """Like `predict_decoded` with the padding's rows, but does not wait for the device."""
        padding = [(0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)]
        return self._probabilities(self._on_device, np.pad(images, padding))

    def most_probable(self, probabilities: np.ndarray, top: int) -> list[dict[str, Any]]:
        """Class, index and probability of the most probable classes, the first the most.

        Args:
            probabilities: of one image, float32 [classes].
            top: how many.
        """
        names = self._names
        return [
            {"class": names[i], "index": int(i), "probability": float(probabilities[i])}
            for i in np.argsort(-probabilities, kind="stable")[:top]
        ]

    def attention(self, images: np.ndarray) -> tuple[np.ndarray, dict[str, ModuleMaps]]:
        """Predicts, and returns the maps of all attention modules.

        Args:
            images: uint8 [B, image_size, image_size, 3].

        Returns:
            Probabilities float32 [B, classes]; maps float32 by the modules' names, such as
            "stage1/module1", in the order of the network.

        Raises:
            UsageError: the network has no attention modules.
        """
        logits, maps = self._logits_and_maps(self._on_device, images)
        as_float = {
            name: ModuleMaps(*(np.asarray(x, np.float32) for x in maps[name]))
            for name in in_order(maps)
        }
        return np.asarray(self.to_probabilities(logits)), as_float

    def logits(self, variables: Any, images: Array) -> Array:
        """Logits float32 [B, classes] of uint8 images [B, image_size, image_size, 3]; traceable."""
        inputs = normalize(images, self.normalization)
        logits: Any = self.model.apply(variables, inputs, train=False)
        return logits

    def to_probabilities(self, logits: Array) -> Array:
        """Probabilities of the classes, which with the sigmoid loss do not add up to 1."""
        return jax.nn.sigmoid(logits) if self.config.loss == SIGMOID else jax.nn.softmax(logits)

    def logits_and_maps(self, variables: Any, images: Array) -> tuple[Array, dict[str, ModuleMaps]]:
        """`logits`, and the maps of all attention modules by name; traceable.

        Raises:
            UsageError: the network has none.
        """
        inputs = normalize(images, self.normalization)
        apply = partial(self.model.apply, train=False, mutable=["intermediates"])
        logits, seen = apply(variables, inputs)
        maps = read_maps(seen.get("intermediates", {}))
        if not maps:
            raise UsageError(
                f"{self.config.model.name} has no attention modules: choose a run of a network "
                "that has"
            )
        return logits, maps

    @cached_property
    def _logits_and_maps(self) -> Any:
        return jax.jit(self.logits_and_maps)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return self.readable_names

    @cached_property
    def _on_device(self) -> Any:
        return jax.device_put(self.variables)

    @cached_property
    def _probabilities(self) -> Any:
        return jax.jit(
            lambda variables, images: self.to_probabilities(self.logits(variables, images))
        )


def load(
    workdir: epath.PathLike, step: int | str = LAST, *, fold_batch_norm: bool = False
) -> Classifier:
    """Reads the network of a checkpoint, without changing the folder.

    Args:
        workdir: the run's folder; the name of a pretrained network, of `list_pretrained`; a folder
            that `export --format=safetensors` has made; or "hf://owner/name", one on a hub.
        step: number of updates of the checkpoint; "last" is the latest valid one, "best" the one
            that `config.keep_best` has chosen.
        fold_batch_norm: compute batch norm's vectors once, and let convolutions multiply by them:
            predictions are the same but for rounding, and sooner; the variables are those of
            `models.folding.fold_batch_norm`.

    Raises:
        UsageError: the folder holds no run, no such checkpoint, or one of an older version; there
            is no such pretrained network, or its files are damaged; or there is no device.
        DataError: all checkpoints are damaged.
    """
    find_devices()  # otherwise the first prediction fails with an unclear error
    network = Classifier(**vars(read_saved_run(workdir, step)))
    if not fold_batch_norm:
        return network
    shape = (network.image_size, network.image_size, 3)
    folded = folding.fold_batch_norm(network.model, network.variables, shape)
    return dataclasses.replace(network, variables=folded)
