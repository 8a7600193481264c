"""The plan for a pod, on devices of this machine."""

import dataclasses
import json
import re

import jax
import pytest

from experiments.plan_pod import table
from experiments.pod.chips import CHIPS, open_topology
from experiments.pod.costs import Costs, collectives, costs
from experiments.pod.plan import costs_with_loops, plan
from experiments.pod.predict import MOST_COMPILATIONS, largest_batch, step_time
from experiments.pod.step import PlannedStep, num_bytes
from rattn_jax.config.load import parse_config
from rattn_jax.data.catalog import build_dataset, build_spec
from rattn_jax.data.open_loader import image_sizes, open_loader
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import make_mesh
from rattn_jax.training.step_functions import build_steps
from tests import tiny
from tests.forks import start_python


def make_config(**changes):
    return parse_config(tiny.make_config(**changes))


def streamed_config(**changes):
    config = make_config(**{"normalization": "imagenet"} | changes)
    dataset = dataclasses.replace(config.dataset, max_resident_bytes=0)
    return dataclasses.replace(config, dataset=dataset)


def lowered_text(function, *arguments):
    return function.lower(*arguments).as_text()


@pytest.mark.parametrize("make", [make_config, streamed_config])
@pytest.mark.parametrize(
    "changes", [{}, {"ema_decay": 0.9, "accumulate_steps": 2, "on_nonfinite": "skip"}]
)
def test_the_planned_step_is_the_one_that_trains(make, changes):
    config, devices = make(modules=0, **changes), jax.devices()[:2]
    mesh, spec = make_mesh(devices), build_spec(config)
    steps = build_steps(config, spec, mesh)
    loader = open_loader(config, build_dataset(config), image_sizes(config.dataset, spec), mesh)
    data, rows, _ = loader.train(0, 1)
    state = steps.to_device(steps.initial_state())
    trained = lowered_text(steps.train_function, state, data, rows)
    loader.close()
    step = PlannedStep(config, devices)
    planned = lowered_text(step.function, step.state, step.data, step.rows)
    # Batches come from the host, with no sharding of their own.
    assert without_shardings(planned) == without_shardings(trained)


def without_shardings(text):
    share = r' \{sdy\.sharding = #sdy\.sharding<@mesh, \[\{\}, \{"data"\}(, \{\})*\]>\}'
    return re.sub(share, "", text)


def test_memory_work_and_exchange():
    config = make_config(modules=0, validation_examples=100)
    devices, chip = open_topology("cpu:4")
    found = plan(config, devices, chip)
    step = PlannedStep(config, devices)
    assert found.resident
    assert found.fits is None
    assert found.memory.arguments == num_bytes((step.state, step.data)) + 16 // 4 * 4
    assert step.data.images.shape == (1_337, 8, 8, 3)
    image = 8 * 8 * 3
    normalization, seed = 4 * (image + 1), 4
    assert found.evaluated_bytes == (360 + 100) * (image + 4) + 2 * (normalization + seed)
    state = step.state
    # Three totals and, as the three counts are the same, one count.
    exchanged = num_bytes((state.params, state.batch_stats)) + 4 * (3 + 1)
    assert found.costs.all_reduce_bytes == exchanged
    assert found.costs.other_collective_bytes == 0
    assert "all-reduced" in table(found, "cpu:4", chip)


@pytest.mark.slow
def test_search_from_the_config_to_the_table():
    chip = dataclasses.replace(CHIPS["v5e"], hbm_bytes=2**20)
    said = []
    found = plan(streamed_config(), jax.devices()[:2], chip, search=True, say=said.append)
    assert found.fits
    assert found.step_time.chips == 2
    assert [time.chips for time in found.scaling] == [4, 16, 64, 256]
    largest = found.largest
    assert largest.batch > 8  # of the config: 16 on two devices
    assert found.memory.total < largest.total_bytes <= chip.hbm_bytes
    assert f"{largest.batch} (" in table(found, "cpu:2", chip)
    sizes = [line for line in said if " takes " in line]
    assert len(sizes) == largest.compilations - 1  # without the config's own
    assert f"takes {largest.total_bytes / 2**20:,.1f} MiB a device" in "".join(sizes)


@pytest.mark.slow
def test_search_goes_no_further_than_a_config_may(monkeypatch):
    def planned_step(config, devices):
        if config.batch_size > 48:
            raise UsageError(f"config.batch_size={config.batch_size} is out of range")
        return PlannedStep(config, devices)

    monkeypatch.setattr("experiments.pod.plan.PlannedStep", planned_step)
    said = []
    devices, chip = jax.devices()[:2], CHIPS["v5e"]
    largest = plan(streamed_config(), devices, chip, search=True, say=said.append).largest
    assert 16 <= largest.batch <= 24 < largest.refused <= 32
    refused = 2 * largest.refused
    assert f"batch {refused} is refused: config.batch_size={refused} is out of range" in said


@pytest.mark.slow
@pytest.mark.parametrize("sync_batch_norm", [False, True])
def test_looped_modules_cost_what_they_cost_apart(sync_batch_norm):
    devices = jax.devices()[:2]
    keys = tiny.make_config(sync_batch_norm=sync_batch_norm)
    keys.model.modules_per_stage = (3,)
    config = parse_config(keys)
    apart = costs(PlannedStep(config, devices).lower().compile())
    assert costs_with_loops(config, devices, apart, lambda text: None) is apart
    keys.model.scan_modules = True
    config = parse_config(keys)
    once = costs(PlannedStep(config, devices).lower().compile())
    looped = costs_with_loops(config, devices, once, lambda text: None)
    assert looped.all_reduce_bytes == apart.all_reduce_bytes
    assert looped.flops == pytest.approx(apart.flops, rel=0.01)
    assert looped.bytes_accessed == pytest.approx(apart.bytes_accessed, rel=0.02)
    if sync_batch_norm:
        assert once.all_reduce_bytes < looped.all_reduce_bytes
    else:
        assert looped.all_reduces == once.all_reduces


def test_tpus_compile_the_convolutions_of_tpus():
    step = PlannedStep(make_config(), jax.devices()[:1])
    traced = step.function.trace(step.state, step.data, step.rows)
    texts = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "tpu")
    }
    count = {platform: text.count("stablehlo.convolution") for platform, text in texts.items()}
    # On CPU, the kernels' gradients of the nine 3x3 convolutions of stride 1 are products of
    # matrices.
    assert count["tpu"] == count["cpu"] + 9


def test_collectives_in_a_program():
    hlo = """
  %psum = s32[]{:T(128)} all-reduce(%constant), channel_id=1, to_apply=%add
  %all-reduce.5 = (f32[256]{0:T(256)S(1)}, /*index=1*/bf16[2,3]{1,0}) all-reduce(%a, %b)
  %start = f32[8]{0} all-reduce-start(%c), channel_id=3
  %done = f32[8]{0} all-reduce-done(%start)
  %element = f32[256]{0} get-tuple-element(%all-reduce.5), index=0
  %gather = f32[4,4]{1,0} all-gather(%d), channel_id=4
"""
    expected = [("all-reduce", 4), ("all-reduce", 1036), ("all-reduce", 32), ("all-gather", 64)]
    assert collectives(hlo) == expected


def test_step_time():
    work = Costs(197e9, 1.638e9, 3, 100e6, 0)
    time = step_time(work, CHIPS["v5e"], 16)
    assert time.compute == pytest.approx(1e-3)
    assert time.memory_traffic == pytest.approx(2e-3)
    # 15/16 of 200 MB at 200 GB/s; 3 times along two axes and back, 3 hops each, 1 us a hop.
    assert time.all_reduce == pytest.approx(0.9375e-3 + 36e-6)
    assert time.step == pytest.approx(2e-3 + time.all_reduce)
    assert step_time(work, CHIPS["v5e"], 1).all_reduce == 0


@pytest.mark.parametrize(
    ("start", "per_image", "fixed", "refuses_above"),
    [(64, 10, 100, None), (64, 10, 100, 80), (512, 10, 100, None), (1, 700, 100, None)],
)
def test_largest_batch(start, per_image, fixed, refuses_above):
    def total_bytes(batch):
        size = fixed + per_image * batch
        return None if refuses_above and batch > refuses_above else size

    found = largest_batch(total_bytes, start, 1000)
    size = total_bytes(found.batch)
    assert size is not None
    assert found.total_bytes == size <= 1000
    exact = min(900 // per_image, refuses_above or 1000)
    assert found.refused > exact
    assert found.refused - found.batch <= max(1, exact // 32)
    assert found.compilations <= 7


def test_largest_batch_when_memory_grows_faster_than_the_line():
    found = largest_batch(lambda batch: batch * batch, 64, 100**2)
    assert 97 <= found.batch <= 100 < found.refused <= 103


def test_a_search_without_an_end_stops():
    found = largest_batch(lambda batch: 1, 4, 1000)
    assert (found.refused, found.compilations) == (None, MOST_COMPILATIONS)


def test_no_batch_fits():
    found = largest_batch(lambda batch: None, 4, 1000)
    assert (found.batch, found.total_bytes, found.refused) == (0, 0, 1)


@pytest.mark.parametrize("name", ["v9:2x2", "cpu:0", "cpu", "v5e:", "v5e:4x", "cpu:9"])
def test_unknown_topologies(name):
    with pytest.raises(UsageError, match=f"--topology={name}"):
        open_topology(name)


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="libtpu"):
        open_topology("v5e:4x4")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 15}, "batch_size=15"),
        ({"parallel": "pmap"}, "parallel='pmap'"),
        ({"learning_rate": -1}, None),
    ],
)
def test_configs_that_cannot_be_planned(change, message):
    if message is None:
        config, message = streamed_config(normalization="mean_image"), "they stream"
    else:
        config = make_config(**change)
    with pytest.raises(UsageError, match=message):
        PlannedStep(config, jax.devices()[:2])


def run(*arguments):
    command = ["-m", "experiments.plan_pod", "--config=tests/bare.py", *arguments]
    process = start_python(*command, JAX_NUM_CPU_DEVICES=None)
    return *process.communicate(timeout=200), process.returncode


def test_command():
    out, err, status = run("--topology=cpu:8", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert (found["topology"], found["devices"], found["batch_size"]) == ("cpu:8", 8, 16)
    assert found["costs"]["all_reduce_bytes"] > 0


@pytest.mark.parametrize("arguments", [["--topology=cpu:3"], ["--topology=v9:1"], ["--nonsense"]])
def test_command_says_in_a_line_what_is_wrong(arguments):
    _, err, status = run(*arguments)
    assert status == 2
    assert err.startswith("experiments.plan_pod: ")
    assert err.count("\n") == 1


def test_table_of_a_refusal():
    devices, _ = open_topology("cpu:2")
    found = plan(make_config(modules=0), devices, None)
    chip = CHIPS["v5e"]
    refused = dataclasses.replace(found, memory=None, costs=None, refusal="too much", fits=False)
    assert "does not fit" in table(refused, "v5e:1x2", chip)
    assert "too much" in table(refused, "v5e:1x2", chip)
