"""Attention-56 on CIFAR-10 in 60 epochs, a third of the paper's schedule, for a CPU.

    python main.py --config=configs/cifar10_attention56_fast.py --workdir=runs/fast

The learning rate rises for 3 epochs and then falls along a straight line to 0, which beats steps at
a fixed small budget (Li, Yumer & Ramanan 2019, arXiv 1905.04753). Label smoothing, a small cutout,
and weight decay on kernels only.

Test error, on images that were JPEG-coded once: 9.13 % (`experiments/RESULTS.md`); 8.64 % after a
second round of 30 epochs that begins with these weights: the package's `attention56_cifar10`.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default

_STEPS_PER_EPOCH = 390  # 50,000 images in batches of 128


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "attention56_cifar"

    config.batch_size = 128
    config.num_train_steps = 60 * _STEPS_PER_EPOCH
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 3 * _STEPS_PER_EPOCH
    config.optimizer.learning_rate = 0.2
    config.optimizer.weight_decay = 3e-4
    config.optimizer.decay_norm_and_bias = False
    config.label_smoothing = 0.1
    config.regularization.cutout = 8  # pixels

    config.eval_every_steps = 2 * _STEPS_PER_EPOCH
    config.checkpoint_every_steps = _STEPS_PER_EPOCH // 2
    return config
