import dataclasses
import json
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

from experiments.reproduce import costs, step_time
from experiments.reproduce.responses import RESPONSES, measure, stage_responses
from experiments.reproduce.runs import ROOT, PlannedRun, plan_runs
from experiments.reproduce.scales import SCALES
from experiments.reproduce.tables import TABLES, Variant
from rattn_jax import create_model, load
from rattn_jax.config.load import parse_config
from rattn_jax.configs import default
from rattn_jax.models.summary import layers, standard_input
from rattn_jax.train import train_and_evaluate
from tests.networks import CIFAR_MULTIPLY_ADDS, IMAGENET_MULTIPLY_ADDS
from tests.tiny import make_config
from tests.variables import random_variables


def plan(folder, **changes):
    config = make_config(**changes)
    return PlannedRun(Variant("tiny", "digits"), 0, epath.Path(folder), (), config)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train_and_evaluate(make_config(), folder, jax.devices()[:1])
    return plan(folder)


def mean_responses(network, images, modules):
    inputs = (images - np.asarray(network.normalization.mean)) * network.normalization.scale
    _, seen = network.model.apply(
        network.variables, inputs, train=False, mutable="intermediates", capture_intermediates=True
    )
    outputs = seen["intermediates"]
    return {
        stage: pytest.approx(np.abs(outputs[name]["__call__"][0]).mean(), rel=1e-4)
        for stage, name in modules.items()
    }


def images(count=150):
    return np.random.RandomState(0).randint(0, 256, (count, 8, 8, 3)).astype(np.uint8)


def test_responses_of_attention_stages(run):
    network = load(run.folder)
    expected = mean_responses(network, images(), {"stage1": "stage1"})
    assert stage_responses(network, images()) == expected


def test_responses_of_residual_stages(run):
    model = create_model("resnet164_cifar", 10, units_per_stage=(1, 2), widths=(8, 16))
    variables = random_variables(model, (8, 8, 3))
    network = dataclasses.replace(load(run.folder), model=model, variables=variables)
    modules = {"stage1": "stage1_unit1", "stage2": "stage2_unit2"}
    assert stage_responses(network, images()) == mean_responses(network, images(), modules)


def test_responses_are_kept_with_their_step(run):
    measure(run.folder)
    path = run.folder / RESPONSES
    record = json.loads(path.read_text())
    assert (record["step"], record["images"]) == (6, 360)
    assert list(record["responses"]) == ["stage1"]
    path.write_text(json.dumps(record | {"step": 5}))
    measure(run.folder)
    assert json.loads(path.read_text()) == record


def test_a_step_is_measured_once_for_a_network(tmp_path, monkeypatch):
    asked, said = [], []
    monkeypatch.setattr(step_time, "_in_a_process", lambda f, c: asked.append(c) or 0.5)
    times = step_time.StepTimes(said.append)
    assert times.seconds(plan(tmp_path)) == times.seconds(plan(tmp_path, seed=1)) == 0.5
    assert times.seconds(plan(tmp_path, batch_size=32)) == 0.5
    assert len(asked) == 2
    assert said == ["measuring a step of tiny"] * 2


def test_an_estimate_compiles_no_network(tmp_path, monkeypatch):
    speeds = []
    monkeypatch.setattr(costs, "measure_speed", lambda: speeds.append(1e9) or 1e9)
    times = step_time.StepTimes(None)
    config = parse_config(make_config())
    network = create_model("attention56_cifar", 10, **config.model.keywords())
    counted = sum(layer.multiply_adds for layer in layers(network, 8))
    assert costs.multiply_adds(config) == counted
    assert times.seconds(plan(tmp_path)) == pytest.approx(3 * counted * 16 / 1e9)
    assert times.seconds(plan(tmp_path, seed=1)) == times.seconds(plan(tmp_path))
    assert len(speeds) == 1


def test_multiply_adds_of_the_tables():
    expected = CIFAR_MULTIPLY_ADDS | {n: c[0] for n, c in IMAGENET_MULTIPLY_ADDS.items()}
    for name in costs.MULTIPLY_ADDS.keys() & expected.keys():
        assert costs.MULTIPLY_ADDS[name] == expected[name]
    names = {
        run.config.model.name
        for table in TABLES.values()
        for run in plan_runs(table.variants(), SCALES["paper"], epath.Path("x"), 1, ())
    }
    assert names == costs.MULTIPLY_ADDS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", costs.MULTIPLY_ADDS)
def test_multiply_adds_of_a_network(name):
    size, num_classes = standard_input(name)
    products = layers(create_model(name, num_classes), size)
    assert sum(layer.multiply_adds for layer in products) == costs.MULTIPLY_ADDS[name]


def test_multiply_adds_grow_with_images_and_widths():
    config = default.get_config()
    standard = costs.multiply_adds(parse_config(config))
    assert standard == costs.MULTIPLY_ADDS["attention56_cifar"]
    config.model.widths = (32, 64, 128)
    config.model.scan_modules, config.model.attention_residual = True, False
    config.dataset.image_size = 64
    assert costs.multiply_adds(parse_config(config)) == standard  # a quarter, of four times
    config.model.mask_structure = "local"
    assert costs.multiply_adds(parse_config(config)) != standard


def test_speed_of_this_machine():
    assert 1e6 < costs.measure_speed() < 1e17


def test_what_a_run_has_noted_goes_first(run):
    rates = [row["steps_per_sec"] for row in run.rows() if row.get("steps_per_sec")]
    assert step_time.StepTimes(print).seconds(run) == pytest.approx(1 / np.median(rates))


def test_time_left(tmp_path):
    # 6 updates of 16 images, and 3 evaluations of 360 at a third of the time.
    assert step_time.seconds_left(plan(tmp_path), 0.5) == 0.5 * (6 + 3 * 360 / 16 / 3)


def test_a_step_is_timed():
    assert 0 < step_time._measure(make_config(modules=0)) < 60


@pytest.mark.parametrize(
    ("number", "answer"), [(signal.SIGINT, 75), (signal.SIGTERM, 75), (signal.SIGTERM, 0)]
)
def test_signals_reach_the_run_and_end_the_table(number, answer):
    act = f"lambda *_: sys.exit({answer})"
    child = f"import signal, sys, time; signal.signal({int(number)}, {act})\n"
    child += "print('ready', flush=True)\n"
    # Not signal.pause(): a signal that comes just before it is handled only after the next one.
    child += "while True: time.sleep(0.05)"
    parent = "import sys; from experiments.reproduce.runs import call; "
    parent += f"sys.exit(call([sys.executable, '-c', {child!r}]))"
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            assert process.wait(timeout=60) == 75
        finally:
            process.kill()
