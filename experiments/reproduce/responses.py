"""Mean absolute response of a trained network's stages (paper, figure 4).

    python -m experiments.reproduce.responses RUN ...

writes RUN/stage_responses.json, for networks of residual units and for attention networks.
"""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

import rattn_jax
from rattn_jax.cli import errors_on_one_line, set_up_process, working
from rattn_jax.data.batches import normalize
from rattn_jax.data.catalog import build_dataset
from rattn_jax.data.dataset import Subset
from rattn_jax.data.read import load_split
from rattn_jax.inference.network import Classifier
from rattn_jax.models.stages import apply_and_watch
from rattn_jax.runs.files import replace_text

RESPONSES = "stage_responses.json"
NUM_IMAGES, _BATCH_SIZE = 1_000, 100


def stage_responses(network: Classifier, images: np.ndarray) -> dict[str, float]:
    """Mean absolute value of each stage's output, by the stages' names.

    Args:
        network: a trained network with stages.
        images: uint8 [N, image_size, image_size, 3].
    """

    @jax.jit
    def responses(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        inputs = normalize(images, network.normalization)
        _, outputs = apply_and_watch(network.model, variables, inputs)
        return {
            stage: jnp.mean(jnp.abs(output), dtype=jnp.float32) for stage, output in outputs.items()
        }

    batches = [images[i : i + _BATCH_SIZE] for i in range(0, len(images), _BATCH_SIZE)]
    found = [jax.device_get(responses(network.variables, batch)) for batch in batches]
    weights = [len(batch) for batch in batches]
    return {
        stage: float(np.average([batch[stage] for batch in found], weights=weights))
        for stage in sorted(found[0])
    }


def measure(workdir: epath.PathLike) -> None:
    """Writes the responses of a run's newest checkpoint into its folder, unless they are there."""
    network = rattn_jax.load(workdir)
    path = network.folder / RESPONSES
    if path.exists() and json.loads(path.read_text())["step"] == network.step:
        return
    test = build_dataset(network.config).test
    chosen = range(min(NUM_IMAGES, len(test)))
    split = load_split(
        Subset(test, chosen),
        size=network.image_size,
        crop_fraction=network.crop_fraction,
        num_classes=len(network.class_names),
        exact=network.config.dataset.exact_pixels,
    )
    found = stage_responses(network, split.images)
    for stage, value in found.items():
        print(f"{stage}  {value:.4g}")
    record = {"step": network.step, "images": len(split.images), "responses": found}
    replace_text(path, json.dumps(record) + "\n")


if __name__ == "__main__":
    set_up_process()
    with errors_on_one_line("experiments.reproduce.responses"):
        for folder in sys.argv[1:]:
            with working(f"measuring responses of {folder}"):
                measure(folder)
