"""Networks: `create_model(name, num_classes)`, `list_models()`."""

from rattn_jax.models.registry import create_model, list_models

__all__ = ["create_model", "list_models"]
