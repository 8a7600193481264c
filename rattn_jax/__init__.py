"""Residual Attention Networks (Wang et al., CVPR 2017) in JAX and Flax."""

from typing import TYPE_CHECKING, Any

from rattn_jax.errors import UsageError

if TYPE_CHECKING:
    from rattn_jax.inference.network import Classifier
    from rattn_jax.models import create_model, init_variables, list_models

__version__ = "0.1.0"
__all__ = [
    "UsageError",
    "__version__",
    "create_model",
    "init_variables",
    "list_models",
    "list_pretrained",
    "load",
]


def load(workdir: str, step: int | str = "last", *, fold_batch_norm: bool = False) -> "Classifier":
    """Reads a trained network from the folder of a run, or a pretrained one by its name.

    See `rattn_jax.inference.network.load`.
    """
    from rattn_jax.inference import network

    return network.load(workdir, step, fold_batch_norm=fold_batch_norm)


def list_pretrained() -> list[str]:
    """Names of the pretrained networks that come with the package, for `load`; sorted."""
    from rattn_jax.runs import pretrained

    return pretrained.list_pretrained()


def __getattr__(name: str) -> Any:
    """Imports the networks, and with them JAX, on first use."""
    if name in ("create_model", "init_variables", "list_models"):
        from rattn_jax import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
