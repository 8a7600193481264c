"""Residual Attention Networks (Wang et al., CVPR 2017) in JAX and Flax."""

from typing import TYPE_CHECKING

from rattn_jax.errors import UsageError
from rattn_jax.models import create_model, list_models

if TYPE_CHECKING:
    from rattn_jax.inference.network import Trained

__version__ = "0.1.0"
__all__ = ["UsageError", "__version__", "create_model", "list_models", "load"]


def load(workdir: str) -> "Trained":
    """The trained network of a run's folder: see `rattn_jax.inference.network.load`."""
    from rattn_jax.inference import network  # which imports what reads images and checkpoints

    return network.load(workdir)
