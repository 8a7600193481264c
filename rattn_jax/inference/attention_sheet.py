"""Draws the sheet of an image: predictions of a network, and maps of its attention modules."""

from collections.abc import Sequence

import numpy as np
from etils import epath
from PIL import Image

from rattn_jax.data.decoding import BadImageError
from rattn_jax.errors import DataError, UsageError
from rattn_jax.inference.network import Classifier
from rattn_jax.models.attention import ModuleMaps
from rattn_jax.report.mask_sheet import draw_sheet, strongest_channels

NUM_CHANNELS = 3  # drawn of each module, unless they are named


def draw_image(network: Classifier, file: epath.Path, channels: Sequence[int] = ()) -> Image.Image:
    """Draws the sheet of an image.

    Args:
        network: a trained network.
        file: the image.
        channels: channels to draw, in modules that have them; empty: the strongest three of each.

    Raises:
        UsageError: the network has no attention modules, or none with one of the channels.
        DataError: the image cannot be read.
    """
    try:
        image = network.decode(file)
    except (BadImageError, OSError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    (probabilities,), batch = network.attention(image[None])
    maps = {name: ModuleMaps(*(x[0] for x in found)) for name, found in batch.items()}
    most = max(found.mask.shape[-1] for found in maps.values())
    if max(channels, default=0) >= most:
        raise UsageError(
            f"--channels={max(channels)}: must be below {most}, the most that a module has"
        )
    best = np.argsort(-probabilities, kind="stable")[:4]
    answers = [f"{network.readable_names[i]} {probabilities[i]:.1%}" for i in best]
    title = [
        f"{file.name}: {answers[0]}",
        f"then {', '.join(answers[1:])}" if answers[1:] else "",
        f"{network.config.model.name} after {network.step:,} updates, {network.folder.name}",
    ]
    chosen = {
        name: [c for c in channels if c < found.mask.shape[-1]]
        if channels
        else strongest_channels(found, NUM_CHANNELS)
        for name, found in maps.items()
    }
    lowest = -1.0 if network.config.model.mask_activation == "channel" else 0.0
    return draw_sheet(image, title, maps, chosen, lowest=lowest)
