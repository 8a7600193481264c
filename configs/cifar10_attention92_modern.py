"""Attention-92 on CIFAR-10 with a modern recipe.

    python main.py --config=configs/cifar10_attention92_modern.py --workdir=runs/modern

What reached 2.86 % test error in another implementation: batches of 256, mixup, cutout, a learning
rate that rises for five epochs and falls along a cosine, no decay of biases and batch norm. Not
yet run here.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default

_STEPS_PER_EPOCH = 195  # 50,000 images in batches of 256


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.model.name = "attention92_cifar"

    config.batch_size = 256
    config.num_train_steps = 300 * _STEPS_PER_EPOCH
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 5 * _STEPS_PER_EPOCH
    config.optimizer.learning_rate = 0.1
    config.optimizer.decay_norm_and_bias = False

    config.regularization.mixup = 0.2
    config.regularization.cutout = 16  # pixels (DeVries & Taylor 2017, table 1)
    return config
