"""Training from Python: what `main.py` runs.

from rattn_jax.train import train_and_evaluate
state = train_and_evaluate(config, workdir)
"""

from rattn_jax.training.run import train_and_evaluate

__all__ = ["train_and_evaluate"]
