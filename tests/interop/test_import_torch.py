"""Weights of the PyTorch port; the tests against PyTorch itself are in test_port_twin.py."""

import dataclasses
import json
import sys
from functools import partial

import jax
import numpy as np
import optax
import pytest
from etils import epath
from flax.traverse_util import flatten_dict

import rattn_jax
from rattn_jax import import_torch
from rattn_jax.config.load import parse_config
from rattn_jax.configs import default
from rattn_jax.data.catalog import build_dataset
from rattn_jax.data.splits import build_splits
from rattn_jax.errors import UsageError
from rattn_jax.interop import torch_files
from rattn_jax.interop.torch_port import convert, recognize
from rattn_jax.runs.workdir import open_run_folder
from rattn_jax.training.init_from import open_source, start_from
from rattn_jax.training.state import create_train_state
from rattn_jax.training.step_functions import build_model
from tests import port_state
from tests.variables import zeros

TINY = {"widths": (16, 24, 32), "num_classes": 3}
NETWORKS = {  # names here, sides of the images
    "ResidualAttentionModel_56": ("attention56", 224),
    "ResidualAttentionModel_92": ("attention92", 224),
    "ResidualAttentionModel_92_32input_update": ("attention92_port_cifar", 32),
}
NAMES = list(NETWORKS)
CIFAR = NAMES[2]
# Learnable parameters; units that never use their conv4; batch norms.
COUNTS = {
    NAMES[0]: (29_782_218, 29, 107),
    NAMES[1]: (50_437_834, 50, 176),
    NAMES[2]: (12_170_730, 41, 149),
}
# Logits that tests/port_twin.py computes in float64 from `random_state(name, **TINY)` on `images`.
GOLDEN = {
    NAMES[0]: [
        [0.968974614363, 0.358073876658, 3.64996665584],
        [0.972512455825, 0.343778952496, 3.65106368278],
    ],
    NAMES[2]: [
        [2.94625923479, 3.16884878172, 1.66172494917],
        [2.96201528458, 3.15739135371, 1.66525991177],
    ],
}


def images(name):
    height, width = (16, 12) if name == CIFAR else (72, 50)
    return np.random.RandomState(1).normal(size=(2, height, width, 3))


def logits_of(state, name):
    model = recognize(state).create_model()
    variables, _ = convert(state, model)
    with jax.enable_x64(True):
        return np.asarray(jax.jit(partial(model.apply, train=False))(variables, images(name)))


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_is_filled_once_and_the_rest_is_left_out(name):
    state = port_state.empty_state(name)
    network = recognize(state)
    assert (network.name, network.num_classes) == (name, 10)
    assert (network.model_name, network.image_size) == NETWORKS[name]
    model = network.create_model()
    assert model == rattn_jax.create_model(network.model_name, 10, wiring="port")
    variables, dropped = convert(state, model)
    num_parameters, num_shortcuts, num_norms = COUNTS[name]
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == num_parameters
    assert len(jax.tree.leaves(variables)) + len(dropped) == len(state)
    left_out = [block.split(".")[-1] for block in dropped]
    assert left_out.count("num_batches_tracked") == num_norms
    assert sum(block.endswith(".conv4.weight") for block in dropped) == num_shortcuts
    assert len(dropped) == num_norms + num_shortcuts


def test_no_array_is_used_twice():
    state = port_state.shapes(CIFAR, **TINY)
    state = {name: np.full(shape, i, np.float32) for i, (name, shape) in enumerate(state.items())}
    variables, dropped = convert(state, recognize(state).create_model())
    numbers = {int(leaf.flat[0]) for leaf in flatten_dict(variables).values()}
    numbers |= {int(state[name].flat[0]) for name in dropped}
    assert numbers == set(range(len(state)))


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_are_those_of_the_port(name):
    state = port_state.random_state(name, **TINY)
    np.testing.assert_allclose(logits_of(state, name), GOLDEN[name], rtol=1e-8)


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (
            NAMES[0],
            {"attention_module2.softmax3_blocks.bn2.running_var": None},
            r"attention_module2.softmax3_blocks.bn2.running_var \[6\] is missing: give the whole",
        ),
        (
            NAMES[0],
            {"residual_block2.conv2.weight": (6, 6, 1, 1)},
            r"residual_block2.conv2.weight is float32\[6, 6, 1, 1\]: must be .* \[6, 6, 3, 3\]",
        ),
        (NAMES[0], {"fc.scale": (3,)}, r"fc.scale \[3\] is unknown: the network has no such"),
        (
            CIFAR,
            {"residual_block7.conv4.weight": (1, 1, 1, 1)},
            r"block7.conv4.weight \[1, 1, 1, 1",
        ),
        (CIFAR, {"fc.num_batches_tracked": ()}, r"fc.num_batches_tracked \[\] is unknown"),
        (
            NAMES[0],
            {"fc.weight": None},
            "there is no fc.weight with 2 axes: must be the weights of",
        ),
        (
            NAMES[1],
            {"attention_module0.softmax8_blocks.0.weight": (4,)},
            "ResidualAttentionModel_448input is not supported: must be one of Resid",
        ),
        (
            CIFAR,
            {"conv1.0.weight": (32, 3, 5, 5)},
            "ResidualAttentionModel_92_32input is not supported: must be one of Resid",
        ),
    ],
)
def test_what_is_refused(network, changes, message):
    state = port_state.empty_state(network, **TINY)
    for name, shape in changes.items():
        if shape is None:
            del state[name]
        else:
            state[name] = np.zeros(shape, np.float32)
    with pytest.raises(UsageError, match=message) as caught:
        convert(state, recognize(state).create_model())
    assert "\n" not in str(caught.value)


def test_what_is_left_out_need_not_be_there():
    """Files of PyTorch before 0.4.1 have no counters."""
    state = port_state.empty_state(CIFAR, **TINY)
    variables, dropped = convert(state, recognize(state).create_model())
    for name in dropped:
        del state[name]
    same, nothing = convert(state, recognize(state).create_model())
    assert not nothing
    jax.tree.map(np.testing.assert_array_equal, same, variables)


def test_integers_are_no_weights():
    state = port_state.empty_state(CIFAR, **TINY)
    state["fc.bias"] = np.zeros(3, np.int32)
    with pytest.raises(UsageError, match=r"fc.bias is int32\[3\]: must be floating point \[3\]"):
        convert(state, recognize(state).create_model())


@pytest.fixture(scope="module")
def state():
    """As it is read from a file."""
    return {
        name: array.astype(np.float32) if array.ndim else array
        for name, array in port_state.random_state(CIFAR, **TINY).items()
    }


@pytest.fixture
def file(state, monkeypatch):
    """The name of a file that is read without PyTorch."""
    monkeypatch.setattr(import_torch, "read_state", lambda path: state)
    return "model.pkl"


def test_folder_is_for_all_that_reads_a_run(file, state, tmp_path, capsys):
    workdir, names = tmp_path / "run", tmp_path / "names.txt"
    names.write_text("cat\nwhite dog\nox\n")
    import_torch.main([file, f"--workdir={workdir}", f"--class-names={names}"])
    out = capsys.readouterr().out
    first, left_out, last = out.splitlines()
    assert first.startswith(f"model.pkl: {CIFAR}, ")
    assert first.endswith(" parameters, 3 classes (cat, white dog, ox)")
    assert "149 counters of batches, and conv4.weight of 41 units" in left_out
    assert "(attention_module1 9, attention_module2 6, " in left_out
    assert last == f"in {workdir}, as attention92_port_cifar with images of 32 pixels"

    network = rattn_jax.load(workdir)
    assert network.class_names == ("cat", "white dog", "ox")
    assert (network.step, network.image_size, network.crop_fraction) == (0, 32, 1.0)
    pixels = np.random.RandomState(0).randint(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    model = recognize(state).create_model()
    variables, _ = convert(state, model)
    apply = jax.jit(partial(model.apply, train=False))
    expected = apply(variables, (pixels / 255).astype(np.float32))
    probabilities, maps = network.attention(pixels)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(expected), rtol=1e-4)
    assert list(maps) == [f"stage{i}/module{j}" for i in (1, 2, 3) for j in range(1, i + 1)]

    config = network.config
    record = json.loads((workdir / "config.json").read_text())["config"]
    found, known = (flatten_dict(c, sep=".") for c in (record, default.get_config().to_dict()))
    assert found.keys() - known.keys() == {"imported"}
    assert (config.model.dtype, config.model.mask_activation) == (None, None)
    # What `ablation` reads.
    config = dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, name="digits"))
    assert sorted(build_splits(config, build_dataset(config))[1]) == ["test"]


def test_a_run_starts_from_it_in_another_folder(file, state, tmp_path, capsys):
    workdir = tmp_path / "port"
    import_torch.main([file, f"--workdir={workdir}"])
    config = default.get_config()
    with pytest.raises(UsageError, match=f"imported weights.*--config.init_from={workdir}"):
        open_run_folder(workdir, config.to_dict())
    config.init_from, config.normalization = str(workdir), "zero_one"
    config.model.update(name="attention92_port_cifar", wiring="port", widths=TINY["widths"])
    config = parse_config(config)
    model = build_model(config, 3)
    before = convert(state, model)[0]
    said = []
    start = zeros(partial(create_train_state, jax.random.key(0), model, optax.sgd(1), (8, 8, 3)))
    found = start_from(start, open_source(config, model), ("0", "1", "2"), said.append)
    jax.tree.map(np.testing.assert_array_equal, found.params, before["params"])
    assert said == [f"starting from {workdir}, step 0: classifier included"]


def test_nothing_is_overwritten(file, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        import_torch.main([file, f"--workdir={tmp_path}"])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert err == f"rattn import: workdir {tmp_path} is not empty: choose a new folder\n"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_class_names(tmp_path):
    path = epath.Path(tmp_path / "names.txt")
    assert torch_files.read_class_names(None, 10)[:2] == ("airplane", "automobile")
    assert torch_files.read_class_names(None, 3) == ("0", "1", "2")
    with pytest.raises(UsageError, match=r"names.txt cannot be read \(.*No such file"):
        torch_files.read_class_names(path, 3)
    path.write_text("a\nb\n\n")
    assert torch_files.read_class_names(path, 2) == ("a", "b")
    path.write_text("\ufeffa\nb\n")
    assert torch_files.read_class_names(path, 2) == ("a", "b")
    with pytest.raises(UsageError, match=r"names.txt has 2 lines, and the network 3 classes"):
        torch_files.read_class_names(path, 3)


def test_without_pytorch(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as stopped:
        import_torch.main(["model.pkl", f"--workdir={tmp_path}"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "rattn import: model.pkl is read with PyTorch, which is not installed: pip install -e "
        "'.[torch]'\n"
    )
