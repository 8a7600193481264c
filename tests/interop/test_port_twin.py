"""What needs PyTorch of the import of the port's weights: reading files, and equal logits."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest
from etils import epath

from rattn_jax.errors import UsageError
from rattn_jax.interop.torch_files import read_state
from tests import port_state
from tests.interop.test_import_torch import NAMES, TINY, images, logits_of

torch = pytest.importorskip("torch", reason="an optional dependency")

from tests.port_twin import Network  # noqa: E402


@pytest.mark.parametrize("name", NAMES)
def test_logits(name):
    cifar, modules_per_stage, _ = port_state.NETWORKS[name]
    twin = Network(cifar, modules_per_stage, TINY["widths"], TINY["num_classes"]).double().eval()
    shapes = {key: tuple(value.shape) for key, value in twin.state_dict().items()}
    assert shapes == port_state.shapes(name, **TINY)
    state = port_state.random_state(name, **TINY)
    twin.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()})
    with torch.no_grad():
        expected = twin(torch.from_numpy(images(name)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits_of(state, name), expected, rtol=1e-9)


@pytest.mark.parametrize("zip_file", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}])
def test_file(tmp_path, zip_file, prefix, wrap):
    path = epath.Path(tmp_path / "model.pkl")
    state = OrderedDict(
        {f"{prefix}a": torch.arange(3, dtype=torch.float64) / 4, f"{prefix}b": torch.tensor(7)}
    )
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zip_file)
    found = read_state(path)
    assert {name: array.dtype for name, array in found.items()} == {"a": np.float32, "b": np.int64}
    np.testing.assert_array_equal(found["a"], [0, 0.25, 0.5])
    assert found["b"] == 7


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (__import__("os").mkdir, (self.folder,))


def test_code_in_a_file_is_not_run(tmp_path):
    made = tmp_path / "made"
    path = epath.Path(tmp_path / "model.pkl")
    state = {"a": torch.zeros(1), "b": Malicious(str(made))}
    for save in (torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))):
        save(state, path)
        with pytest.raises(UsageError, match=r"model.pkl is damaged, or holds more than tensors"):
            read_state(path)
        assert not made.exists()


@pytest.mark.parametrize("content", [torch.zeros(2), {"a": 1}, [torch.zeros(1)], {"epoch": 3}])
def test_file_of_something_else(tmp_path, content):
    path = epath.Path(tmp_path / "model.pkl")
    torch.save(content, path)
    with pytest.raises(UsageError, match=r"model.pkl is damaged, or .*: must be a file of torch"):
        read_state(path)


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04"])
def test_damaged_file(tmp_path, data):
    path = epath.Path(tmp_path / "model.pkl")
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"model.pkl is damaged, or holds more than tensors"):
        read_state(path)


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"model.pkl cannot be read \(No such file or directory"):
        read_state(epath.Path(tmp_path / "model.pkl"))
