"""Sections of a config as keywords of what they describe.

create_model(config.model.name, num_classes, **model_keywords(config))
"""

from typing import Any

from ml_collections import ConfigDict


def model_keywords(config: ConfigDict) -> dict[str, Any]:
    """Keywords of `create_model`: those of the keys under `model.` that are set."""
    return {k: v for k, v in config.model.items() if v is not None and k != "name"}
