"""Attention-56 on CIFAR-10 in 120 epochs of large batches, for a GPU.

    python main.py --config=configs/cifar10_attention56_gpu.py --workdir=runs/gpu56

Batches of 512 in bfloat16; the paper's learning rate for each image (Goyal et al. 2017), which
rises for 5 epochs and falls along a straight line to 0; mild mixup and a small cutout; weight decay
on kernels only. Not yet run to the end here.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import default

_STEPS_PER_EPOCH = 98  # 50,000 images in batches of 512


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.model.name = "attention56_cifar"
    config.model.dtype = "bfloat16"

    config.batch_size = 512
    config.num_train_steps = 11_800  # 120 epochs, in whole calls of 100 updates
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 5 * _STEPS_PER_EPOCH
    config.optimizer.learning_rate = 0.8
    config.optimizer.weight_decay = 2e-4
    config.optimizer.decay_norm_and_bias = False
    config.regularization.mixup = 0.2
    config.regularization.cutout = 8  # pixels
    return config
