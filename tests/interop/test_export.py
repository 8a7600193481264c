import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from rattn_jax import export
from rattn_jax.config.load import parse_config
from rattn_jax.data.batches import Normalization
from rattn_jax.errors import DataError
from rattn_jax.inference.network import Classifier
from rattn_jax.interop import export as interop_export
from tests.tiny import make_config, make_model


@pytest.fixture(scope="module")
def network():
    model = make_model()
    shape = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    generator = np.random.RandomState(0)
    return Classifier(
        folder=epath.Path("run"),
        step=3,
        config=parse_config(make_config()),
        model=model,
        variables=model.lazy_init(jax.random.key(0), shape, train=False),
        class_names=tuple("abcdefghij"),
        image_size=8,
        crop_fraction=1.0,
        normalization=Normalization(
            generator.uniform(100, 150, (8, 8, 3)).astype(np.float32), np.float32(1 / 64)
        ),
    )


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(1).randint(0, 256, (5, 8, 8, 3)).astype(np.uint8)


def test_file_computes_what_the_network_computes(network, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "load", lambda *_: network)
    path = tmp_path / "network"
    export.main(["--workdir=run", f"--out={path}", "--masks"])
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: {path.stat().st_size / 1e6:.1f} MB, images uint8 [B, 8, 8, 3]")
    assert [file.name for file in tmp_path.iterdir()] == ["network"]

    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert exported.fun_name == f"rattn_jax with jax {jax.__version__}"
    found = exported.call(images)
    logits, maps = network.logits_and_maps(network.variables, images)
    assert found.keys() == {"logits", "stage1/module1"}
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["stage1/module1"], maps["stage1/module1"].mask, rtol=1e-4)


def test_onnx_file_computes_what_the_network_computes(network, images, tmp_path):
    pytest.importorskip("jax2onnx", reason="an optional dependency")
    onnxruntime = pytest.importorskip("onnxruntime", reason="an optional dependency")
    path = epath.Path(tmp_path / "network.onnx")
    assert interop_export.export_network(network, path, kind="onnx", masks=True) < 1e-5
    session = onnxruntime.InferenceSession(path.read_bytes())
    logits, mask = session.run(["logits", "stage1/module1"], {"images": images})
    expected, maps = network.logits_and_maps(network.variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mask, maps["stage1/module1"].mask, atol=1e-5)


def test_what_differs_is_not_written(network, tmp_path, monkeypatch):
    def half(data):
        return lambda images: {"logits": np.full((len(images), 10), 0.5, np.float32)}

    monkeypatch.setattr(interop_export, "_from_stablehlo", half)
    monkeypatch.setattr(interop_export, "_to_stablehlo", lambda function, size: b"")
    with pytest.raises(DataError, match=r"differs from the trained one by .* nothing is written"):
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
