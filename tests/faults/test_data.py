"""Bad images, races of preparation, resuming at any place, and every example counted once."""

import random
import time
from functools import partial
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rattn_jax.data.batches import ResidentData, imagenet_normalization
from rattn_jax.data.read import BadExamples, load_split
from rattn_jax.data.sampling import evaluation_indices
from rattn_jax.errors import DataError
from rattn_jax.parallel.data_parallel import data_parallel
from rattn_jax.parallel.mesh import DATA_AXIS, ProcessShard, make_mesh, replicate, wait_on_cpu
from rattn_jax.train import train_and_evaluate
from rattn_jax.training import eval_sums, metrics
from rattn_jax.training.steps import eval_steps
from tests.compare import assert_equal, numbers, read_rows
from tests.data.images import encode, pixels
from tests.data.smallest import changed
from tests.data.test_folder import make_folder
from tests.data.test_loading import Files
from tests.devices import ONE
from tests.forks import start_python


@pytest.mark.fault("a bad image, in training or evaluation", fast=4, counted=100)
def test_bad_image(case, outcome):
    chance = random.Random(case)
    images = [encode(pixels(8, 8, seed=i), chance.choice(["PNG", "JPEG"])) for i in range(5)]
    position = chance.randrange(5)
    data = bytearray(images[position])
    kind = ("cut", "garbled", "junk", "record", "huge")[case % 5]
    if kind == "cut":
        data = data[: chance.randrange(len(data))]
    elif kind == "garbled":
        for _ in range(20):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif kind == "junk":
        data = chance.randbytes(200)
    elif kind == "huge":  # a picture of 60,000 x 60,000 pixels in a few bytes
        header = bytearray(encode(pixels(8, 8), "PNG"))
        header[16:24] = (60_000).to_bytes(4, "big") * 2
        data = header
    images[position] = None if kind == "record" else bytes(data)
    load = partial(load_split, Files(images), size=8, num_classes=5)
    training = load(bad_examples=BadExamples(1))
    assert len(training) == 5
    if position in training.labels:  # the decoder makes do with it, in evaluation as well
        assert len(load()) == 5
        outcome("decoded")
        return
    assert training.labels[position] == (position + 1) % 5
    with pytest.raises(DataError, match=f"file {position}"):
        load()
    outcome("replaced in training, refused in evaluation, named")


def preparing(folder):
    return start_python("-m", "tests.faults.prepare_cifar", folder)


@pytest.mark.fault("two processes prepare a dataset, or one is killed", fast=0, counted=20)
def test_preparation(tmp_path, case, outcome):
    if case % 2:
        victim = preparing(tmp_path)
        assert victim.stdout.readline() == "ready\n"
        time.sleep(case / 100)
        victim.kill()
        victim.communicate()
    job = [preparing(tmp_path) for _ in range(2 - case % 2)]
    for process in job:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
    outcome("prepared, whole")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """32 training images: an epoch has two updates."""
    return make_folder(tmp_path_factory.mktemp("images"), count=16)


def small_run(folder, case, **changes):
    streams = case % 2
    return changed(
        dataset__name=f"folder:{folder}",
        dataset__image_size=8,
        dataset__max_resident_bytes=0 if streams else 2**30,
        normalization="imagenet",
        seed=case // 2 % 2,
        **changes,
    )


@pytest.fixture(scope="module")
def straight(folder, tmp_path_factory):
    runs = {}
    for case in range(4):
        workdir = tmp_path_factory.mktemp("straight")
        config = small_run(folder, case, num_train_steps=21)
        runs[case] = (train_and_evaluate(config, workdir, ONE), numbers(read_rows(workdir)))
    return runs


@pytest.mark.fault("cut at any step, streaming or resident", fast=0, counted=80)
def test_resume(folder, straight, tmp_path, case, outcome):
    cut = case // 4 % 20 + 1  # the edge of an epoch, or its middle
    train_and_evaluate(small_run(folder, case, num_train_steps=cut), tmp_path, ONE)
    state = train_and_evaluate(small_run(folder, case, num_train_steps=21), tmp_path, ONE)
    expected, rows = straight[case % 4]
    assert_equal(state, expected)
    # The learning rate's line and the evaluation at the cut are those of a run that ends there.
    assert [row for row in numbers(read_rows(tmp_path)) if row in rows] == rows
    outcome("resumed, bit for bit")


class Corner(nn.Module):
    """Answers with the corner pixel's colour."""

    @nn.compact
    def __call__(self, images, *, train):
        return images[:, 0, 0, :] * self.param("scale", nn.initializers.ones, (1,))


@flax.struct.dataclass
class Classifier:
    """As much of a `TrainState` as an evaluation needs."""

    evaluated: Any


SIZES = (1, 7, 9_999, 10_000, 50_000)
COUNTS = [(size, devices) for size in SIZES for devices in (1, 2, 4, 8)]


@pytest.mark.fault("evaluation of 1 to 50,000 examples", fast=3, counted=len(COUNTS))
def test_each_example_counts_once(case, outcome):
    size, devices = COUNTS[(case * 7) % len(COUNTS)]
    generator = np.random.RandomState(0)
    images = generator.randint(0, 256, (size, 1, 1, 3)).astype(np.uint8)
    labels = generator.randint(0, 3, size).astype(np.int32)
    mesh, model = make_mesh(jax.devices()[:devices]), Corner()
    data = replicate(ResidentData(images, labels, imagenet_normalization()), mesh)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 1, 1, 3)), train=False)
    state = replicate(Classifier(variables), mesh)
    evaluate = data_parallel(
        partial(eval_steps, model=model, axis_name=DATA_AXIS, use_scan=False),
        mesh,
        "shard_map",
        num_batches=2,
    )
    sums = replicate(eval_sums.empty(3), mesh)
    for indices, mask in evaluation_indices(512, size, 1):
        sums = wait_on_cpu(evaluate((state, sums), data, indices, mask), mesh)
    normalization = imagenet_normalization()
    logits = (images[:, 0, 0].astype(np.float32) - normalization.mean) * normalization.scale
    expected = metrics.compute(metrics.measure(jnp.asarray(logits), jnp.asarray(labels)))
    assert metrics.count_examples(sums.metrics) == size
    assert metrics.compute(sums.metrics) == pytest.approx(expected, rel=1e-5)
    for processes in (1, 2, 4):
        seen = [
            ProcessShard(process, processes).of(indices)[ProcessShard(process, processes).of(mask)]
            for process in range(processes)
            for indices, mask in evaluation_indices(512, size, 1)
        ]
        np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(size))
    outcome("each counted once")
