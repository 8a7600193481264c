"""The networks: `create_model(name, num_classes)`, `list_models()`."""

from rattn_jax.models.initial import init_variables
from rattn_jax.models.registry import create_model, list_models
from rattn_jax.models.scan_params import stack_modules, unstack_modules

__all__ = ["create_model", "init_variables", "list_models", "stack_modules", "unstack_modules"]
