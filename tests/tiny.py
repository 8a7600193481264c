"""The smallest network with every kind of layer, and the smallest run."""

from functools import partial

import jax
import numpy as np

from configs import default
from rattn_jax.augment import crop_and_flip
from rattn_jax.models import create_model
from rattn_jax.optimizer import sgd, step_schedule
from rattn_jax.parallel import AXIS, make_mesh, map_replicas, replicate
from rattn_jax.steps import ResidentData, train_steps
from rattn_jax.train_state import create_train_state

KEYWORDS = {"widths": (8,), "modules_per_stage": (1,), "mask_poolings": (1,)}


def make_config(**changes):
    """Six updates on digits, with an evaluation and a checkpoint after every second one."""
    config = default.get_config()
    config.dataset.name = "digits"
    config.model.name = "attention56_cifar"
    config.model.update(KEYWORDS)
    config.batch_size = 16
    config.num_train_steps = 6
    config.log_every_steps = 1
    config.eval_every_steps = 2
    config.checkpoint_every_steps = 2
    config.optimizer.learning_rate = 0.05
    config.optimizer.boundaries = (4,)
    for key, value in changes.items():
        config[key] = value
    return config


def get_config():
    """For `main.py --config=tests/tiny.py`."""
    return make_config()


def make_model(**keywords):
    return create_model("attention56_cifar", 10, **KEYWORDS, **keywords)


def make_data(num_examples):
    generator = np.random.RandomState(0)
    images = generator.randint(0, 256, (num_examples, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(num_examples, dtype=np.int32) % 10
    return ResidentData(images, labels, images.mean(axis=0, dtype=np.float32))


def run_steps(
    indices,
    data,
    *,
    devices=1,
    mode="shard_map",
    calls=1,
    learning_rate=0.05,
    sync=False,
    loop=False,
):
    """State after `calls` calls with the same indices [steps, batch]."""
    mesh = make_mesh(jax.devices()[:devices])
    model = make_model(norm_axis_name=AXIS if sync else None)
    optimizer = sgd(step_schedule(learning_rate, (), 1.0), momentum=0.9, weight_decay=1e-4)
    function = partial(
        train_steps,
        loop=loop,
        model=model,
        optimizer=optimizer,
        augment=partial(crop_and_flip, crop_padding=0, flip=False),
        seed=0,
        axis_name=AXIS,
    )
    step = map_replicas(function, mesh, mode, donate_state=True)
    state = create_train_state(jax.random.key(0), model, optimizer, (8, 8, 3))
    state, data = replicate((state, data), mesh)
    for _ in range(calls):
        state = step(state, data, indices)
    return state
