import dataclasses
import json
import sys
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from etils import epath

from rattn_jax import export
from rattn_jax.errors import DataError, UsageError
from rattn_jax.interop import export as interop_export
from rattn_jax.interop.onnx_graph import to_model
from rattn_jax.interop.to_onnx import translate
from rattn_jax.models.registry import create_model
from tests.classifier import make_classifier, random_variables


@pytest.fixture(scope="module")
def network():
    return make_classifier()


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(1).randint(0, 256, (5, 8, 8, 3)).astype(np.uint8)


def test_file_computes_what_the_network_computes(network, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "load", lambda *_: network)
    path = tmp_path / "network"
    export.main(["--workdir=run", f"--out={path}", "--masks"])
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: {path.stat().st_size / 1e6:.1f} MB, images uint8 [B, 8, 8, 3]")
    assert "; one image takes " in out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["network", "network.json"]
    assert_says_what_it_is(network, json.loads((tmp_path / "network.json").read_text()))

    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert exported.fun_name == f"rattn_jax with jax {jax.__version__}"
    found = exported.call(images)
    logits, maps = network.logits_and_maps(network.variables, images)
    assert found.keys() == {"logits", "stage1/module1"}
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["stage1/module1"], maps["stage1/module1"].mask, rtol=1e-4)


def assert_says_what_it_is(network, about):
    assert about["classes"] == list("abcdefghij")
    assert about["preprocessing"].items() >= {"image_size": 8, "crop_fraction": 1.0}.items()
    assert about["network"] == "attention56_cifar"
    assert about["made_by"] == f"rattn_jax with jax {jax.__version__}"


def test_how_images_are_read_is_that_of_the_run(network):
    assert "EXIF" in interop_export.facts(network)["preprocessing"]["orientation"]
    assert interop_export.facts(network)["probabilities"] == "the softmax of the logits"
    dataset = dataclasses.replace(network.config.dataset, exact_pixels=False)
    config = dataclasses.replace(network.config, dataset=dataset)
    about = interop_export.facts(dataclasses.replace(network, config=config))["preprocessing"]
    assert about["orientation"] == "as stored"
    assert "OpenCV" in about["resize"]


def read_json(text):
    return json.loads(text) if text[0] in "[{" else text


def test_onnx_file_computes_what_the_network_computes(network, images, tmp_path, capsys):
    path = epath.Path(tmp_path / "network.onnx")
    found = interop_export.export_network(network, path, kind="onnx", masks=True)
    assert found.difference < 1e-5
    assert found.milliseconds > 0 < found.network_milliseconds
    assert [file.name for file in path.parent.iterdir()] == ["network.onnx"]
    session = onnxruntime.InferenceSession(path.read_bytes())
    logits, mask = session.run(["logits", "stage1/module1"], {"images": images})
    expected, maps = network.logits_and_maps(network.variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mask, maps["stage1/module1"].mask, atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert_says_what_it_is(network, {key: read_json(text) for key, text in metadata.items()})

    operators = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert operators.total() == found.num_nodes
    assert str(found).startswith(f"{found.num_nodes} nodes, differs from the network by ")
    # Those batch norms that follow a convolution are in it; the others follow a sum.
    assert (operators["Conv"], operators["BatchNormalization"]) == (28, 9)
    assert operators["MaxPool"] == 1
    assert operators.total() < 4 * operators["Conv"]


def test_onnx_file_of_a_network_that_computes_in_bfloat16_is_in_float32(network, tmp_path):
    config = dataclasses.replace(
        network.config, model=dataclasses.replace(network.config.model, dtype="bfloat16")
    )
    half = dataclasses.replace(network, config=config, model=network.model.clone(dtype="bfloat16"))
    path = epath.Path(tmp_path / "network.onnx")
    assert interop_export.export_network(half, path, kind="onnx").difference > 1e-5
    images = np.zeros((1, 8, 8, 3), np.uint8)
    session = onnxruntime.InferenceSession(path.read_bytes())
    (logits,) = session.run(None, {"images": images})
    np.testing.assert_allclose(logits, network.logits(network.variables, images), rtol=1e-4)


PARTS = {"widths": (64,), "modules_per_stage": (1,), "mask_poolings": (2,)}


def run_onnx(function, images):
    size = images.shape[1]
    graph, outputs = translate(function, size)
    data = to_model(graph, {"found": outputs[0]}, ("batch", size, size, 3), {})
    (found,) = onnxruntime.InferenceSession(data.SerializeToString()).run(None, {"images": images})
    return found


@pytest.mark.parametrize(
    ("name", "size", "keywords"),
    [
        ("attention56_cifar", 13, {"mask_activation": "spatial", "unit": "inception", **PARTS}),
        ("attention56", 27, {"mask_activation": "channel", "wiring": "port", **PARTS}),
        ("resnext101", 16, {"widths": (64,), "units_per_stage": (1,)}),
        # Deeper ones make too much of a rounding error, with weights like these.
        *(
            pytest.param(name, 75 if "inception_resnet" in name else 32, {}, marks=pytest.mark.slow)
            for name in (
                "attention56",
                "attentionnext56",
                "attentioninception56",
                "resnext101",
                "wrn16_8_cifar",
                "inception_resnet_v1",
                "inception_resnet_v2",
            )
        ),
    ],
)
def test_onnx_graph_of_every_kind_of_layer(name, size, keywords):
    model = create_model(name, 10, **keywords)
    images = np.random.RandomState(2).randint(0, 256, (2, size, size, 3)).astype(np.uint8)
    variables = random_variables(model, images.astype(np.float32))

    def function(images):
        return model.apply(variables, images.astype(np.float32) / 255, train=False)

    found = run_onnx(function, images)
    expected = np.asarray(jax.jit(function)(images))
    assert np.ptp(expected, axis=0).max() > 1e-2 * np.abs(expected).max()  # images matter
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


MATRIX = np.random.RandomState(0).normal(size=(8, 5)).astype(np.float32)
KERNEL = np.random.RandomState(0).normal(size=(3, 3, 3, 4)).astype(np.float32)
PADDING = ((0, 0), (1, 1), (0, 1), (0, 0))


def convolved(x):
    return jax.lax.conv_general_dilated(
        x, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: nn.max_pool(x, (3, 3), (2, 2), "SAME"), id="max pooling"),
        pytest.param(lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME"), id="mean pooling"),
        pytest.param(lambda x: nn.max_pool(nn.max_pool(x, (2, 1)), (2, 1)), id="twice, an axis"),
        pytest.param(
            lambda x: nn.max_pool(jnp.pad(x - 0.5, PADDING), (2, 2)), id="zeros, then pooling"
        ),
        pytest.param(lambda x: jnp.maximum(x, x * x - 0.1), id="maximum of two values"),
        pytest.param(
            lambda x: jax.lax.slice(x, (0, 1, 0, 0), (x.shape[0], 8, 6, 3)), id="part of two axes"
        ),
        pytest.param(lambda x: convolved(x) * MATRIX[:, :1], id="a factor for each row"),
        pytest.param(lambda x: convolved(x) * MATRIX[0, :4] + 1, id="a factor for each channel"),
        pytest.param(lambda x: jnp.einsum("bhwc,hk->bkwc", x, MATRIX), id="matrix over rows"),
        pytest.param(lambda x: jnp.einsum("bhwc,wk->bhkc", x, MATRIX), id="matrix over columns"),
    ],
)
def test_onnx_graph_of_an_operation(function, images):
    def scaled(images):
        return function(images.astype(np.float32) / 255)

    expected = np.asarray(jax.jit(scaled)(images))
    np.testing.assert_allclose(run_onnx(scaled, images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x**3, "powers other than squares"),
        (lambda x: 1 / (x + 1), "a constant over a value"),
        (lambda x: jnp.maximum(x, 0.5), "a maximum with constants"),
        (lambda x: jax.lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1), *[(0, 0, 0)] * 2]), "padding betw"),
        (lambda x: jnp.einsum("bhwc,bhwd->bcd", x, x), "a product of two values"),
        (lambda x: jnp.sin(x), "the operation sin"),
    ],
)
def test_operations_without_an_onnx_operator_are_refused(function, message):
    def outputs(images):
        return {"logits": function(images.astype(np.float32))}

    with pytest.raises(UsageError, match=rf"no ONNX operator is known for {message}.*stablehlo"):
        interop_export._to_onnx(outputs, 8, {})


def test_what_differs_is_not_written(network, tmp_path, monkeypatch):
    def half(data):
        return lambda images: {"logits": np.full((len(images), 10), 0.5, np.float32)}

    def other(data):
        return lambda images: {"scores": np.zeros((len(images), 10), np.float32)}

    monkeypatch.setattr(interop_export, "_from_stablehlo", half)
    monkeypatch.setattr(interop_export, "_to_stablehlo", lambda function, size: b"")
    with pytest.raises(DataError, match=r"differs from the trained one by .* nothing is written"):
        interop_export.export_network(network, epath.Path(tmp_path / "network"))

    def unknown(data):
        return lambda images: {"logits": np.full((len(images), 10), np.nan, np.float32)}

    monkeypatch.setattr(interop_export, "_from_stablehlo", unknown)
    with pytest.raises(DataError, match=r"differs from the trained one by inf"):
        interop_export.export_network(network, epath.Path(tmp_path / "network"))
    monkeypatch.setattr(interop_export, "_from_stablehlo", other)
    with pytest.raises(DataError, match="the exported network has the outputs scores"):
        interop_export.export_network(network, epath.Path(tmp_path / "network"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["stablehlo", "onnx"])
def test_what_is_there_is_not_replaced(network, tmp_path, monkeypatch, kind):
    """Neither a folder, nor a file beside the network that is not of an export."""
    monkeypatch.setattr(interop_export, "_outputs", None)  # it is refused before all work

    def refused(name):
        with pytest.raises(UsageError) as caught:
            interop_export.export_network(network, epath.Path(tmp_path / name), kind=kind)
        return str(caught.value).replace(f"{tmp_path}/", "")

    (tmp_path / "folder").mkdir()
    assert refused("folder") == "--out=folder is a folder or a device: name a file"
    if kind == "onnx":
        return
    for text in ('{"config": {}}', "[1]", "text"):
        (tmp_path / "config.json").write_text(text)
        assert refused("config") == (
            "--out=config would replace config.json, which no export has written: choose another "
            "file"
        )
        assert (tmp_path / "config.json").read_text() == text
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    assert refused("config") == (
        "--out=config cannot be written (Is a directory): choose another file"
    )
    assert {file.name for file in tmp_path.iterdir()} == {"folder", "config.json"}


def test_an_export_replaces_another(network, tmp_path):
    path = epath.Path(tmp_path / "network")
    for _ in range(2):
        interop_export.export_network(network, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["network", "network.json"]


def test_nothing_is_left_of_an_export_that_fails(network, tmp_path, monkeypatch):
    def fail(data):
        raise RuntimeError

    monkeypatch.setattr(interop_export, "_from_stablehlo", fail)
    with pytest.raises(RuntimeError):
        interop_export.export_network(network, epath.Path(tmp_path / "network"))
    assert not list(tmp_path.iterdir())


def test_bad_usage(network, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "load", lambda *_: network)
    monkeypatch.setattr(interop_export, "_to_stablehlo", lambda function, size: b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for arguments, message in (
        (["--out=x", "--format=onnx"], "--format=onnx needs onnxruntime, which is not installed"),
        ([f"--out={tmp_path}/none/x"], "x cannot be written (No such file or directory): choose"),
    ):
        with pytest.raises(SystemExit) as stopped:
            export.main(["--workdir=run", *arguments])
        assert stopped.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith("rattn export: ")
        assert message in err
        assert err.count("\n") == 1
