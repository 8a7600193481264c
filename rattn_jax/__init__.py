"""Residual Attention Networks (Wang et al., CVPR 2017) in JAX and Flax."""

from rattn_jax.errors import UsageError
from rattn_jax.models import create_model, list_models

__version__ = "0.1.0"
__all__ = ["UsageError", "__version__", "create_model", "list_models"]
