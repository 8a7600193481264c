"""Networks that come with the package, folders of weights, and the hub."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image, ImageOps

import rattn_jax
from rattn_jax import export, predict
from rattn_jax.data.tfds import tfds_root
from rattn_jax.errors import UsageError
from rattn_jax.inference import attention_sheet
from rattn_jax.inference.examples import split_logits
from rattn_jax.interop.safetensors import export_folder
from rattn_jax.runs import weights_folder
from rattn_jax.runs.pretrained import find_folder
from rattn_jax.train import train_and_evaluate
from tests.data.images import encode, pixels
from tests.tiny import make_config

ROOT = Path(__file__).parents[2]
DIGITS = "attention56_digits"


@pytest.fixture(scope="module")
def network():
    return rattn_jax.load(DIGITS)


@pytest.fixture
def folder(tmp_path):
    """A copy of the folder of a pretrained network."""
    return Path(shutil.copytree(find_folder(DIGITS), tmp_path / "copy"))


def usage_error(capsys, main, arguments):
    """The line of a command that ends with status 2."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


@pytest.mark.parametrize("name", rattn_jax.list_pretrained())
def test_a_photo_is_turned_as_its_metadata_says(name):
    network, exif = rattn_jax.load(name), Image.Exif()
    exif[0x0112] = 6  # stored with its right side up
    data = encode(pixels(), quality=95, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = network.decode(ImageOps.exif_transpose(image))
    assert np.abs(network.decode(data).astype(int) - upright).mean() <= 1


@pytest.mark.parametrize("name", rattn_jax.list_pretrained())
def test_network_has_the_error_of_its_card(name):
    network = rattn_jax.load(name)
    dataset = network.config.dataset.name
    if dataset != "digits" and not any((tfds_root(None) / dataset).glob("3.0.2/*.array_record*")):
        pytest.skip(f"{dataset} is not at hand")
    logits, labels = split_logits(network, "test")
    folder = find_folder(name)
    stated = json.loads((folder / "config.json").read_text())["evaluation"]
    assert stated["num_examples"] == len(labels)
    num_errors = int((logits.argmax(axis=-1) != labels).sum())
    # Another program: of two classes that are about as likely, either may be the answer. Sets of
    # TFDS may hold the same images in another encoding.
    tolerance = 1 if dataset == "digits" else 0.01 * len(labels)
    assert abs(num_errors - stated["num_errors"]) <= tolerance
    assert f"| error | {100 * stated['error_top1']:.2f} % of" in (folder / "README.md").read_text()


def test_the_network_of_the_readme_answers_as_it_says():
    network = rattn_jax.load("attention56_cifar10")
    (probabilities,) = network.predict([str(ROOT / "examples/ship.png")])
    assert network.class_names[probabilities.argmax()] == "ship"
    assert probabilities.max() > 0.5


@pytest.mark.parametrize("name", rattn_jax.list_pretrained())
def test_network_is_small_and_quick_to_load(name):
    folder = Path(find_folder(name))
    assert {file.name for file in folder.iterdir()} == set(weights_folder.FILES)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 5e6
    start = time.process_time()
    network = rattn_jax.load(name)
    assert time.process_time() - start < 3
    assert (network.config.data_dir, network.config.compilation_cache_dir) == (None, None)


def test_wheel_has_the_networks(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "rattn_jax", tmp_path / "rattn_jax")
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    command = [sys.executable, "-c", build]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        names = set(wheel.namelist())
    assert "rattn_jax/data/class_names.tsv" in names
    for file in weights_folder.FILES:
        assert f"rattn_jax/pretrained/{DIGITS}/{file}" in names


def test_commands_take_the_name(network, tmp_path, capsys):
    image = tmp_path / "digit.png"
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(image)
    lines = []
    for option in ("--pretrained", "--workdir"):
        predict.main([f"{option}={DIGITS}", str(image)])
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    best = int(network.predict([image]).argmax())
    assert lines[0].startswith(f"{image}  {best} ")


def test_commands_print_readable_names(network, tmp_path, capsys, monkeypatch):
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "digit.png")
    renamed = dataclasses.replace(network, class_names=("n01484850",) * 10)
    monkeypatch.setattr(predict, "load", lambda *_: renamed)
    predict.main(["--workdir=run", str(tmp_path / "digit.png")])
    assert capsys.readouterr().out.count("great white shark") == 5
    title = []
    monkeypatch.setattr(
        attention_sheet, "draw_sheet", lambda image, lines, *rest, **keys: title.extend(lines)
    )
    attention_sheet.draw_image(renamed, tmp_path / "digit.png")
    assert "digit.png: great white shark" in title[0]
    assert title[1].count("great white shark") == 3


def test_exported_run_is_the_run(tmp_path, capsys, network):
    run = tmp_path / "run"
    config = make_config(modules=0, ema_decay=0.9, num_train_steps=2, data_dir=str(tmp_path))
    train_and_evaluate(config, run, jax.devices()[:1])
    trained = rattn_jax.load(run)
    out = tmp_path / "weights"
    export.main([f"--workdir={run}", f"--out={out}", "--format=safetensors", "--evaluate"])
    exported = rattn_jax.load(out)
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.startswith(f"{out}: ")
    assert f"test error {100 * row['error_top1']:.2f} % of 360 test images" in printed

    jax.tree.map(np.testing.assert_array_equal, exported.variables, trained.variables)
    jax.tree.map(np.testing.assert_array_equal, exported.normalization, trained.normalization)
    same = ("step", "model", "class_names", "image_size", "crop_fraction")
    assert [getattr(exported, key) for key in same] == [getattr(trained, key) for key in same]
    assert exported.config == dataclasses.replace(
        trained.config, data_dir=None, compilation_cache_dir=None
    )
    assert str(tmp_path) not in (out / "config.json").read_text()

    changed = make_config(modules=0, init_from=str(out), num_train_steps=1, eval_every_steps=1)
    train_and_evaluate(changed, tmp_path / "next", jax.devices()[:1])
    with pytest.raises(UsageError, match="weights holds exported weights, and no run to go on wi"):
        train_and_evaluate(config, out, jax.devices()[:1])
    with pytest.raises(UsageError, match="holds something else: choose a new folder"):
        export_folder(trained, trained.folder)


def test_paths_of_the_machine_are_not_handed_on(network, tmp_path):
    folder = epath.Path(tmp_path / "in")
    shutil.copytree(network.folder, folder)
    record = json.loads((folder / "config.json").read_text())
    record["config"]["init_from"] = "/home/me/runs/a"
    record["config"]["dataset"]["name"] = "folder:/home/me/photos"
    record["config"]["dataset"]["test_exclude_file"] = "/home/me/list.txt"
    record["config"]["dataset"]["label_noise"]["matrix"] = "/home/me/m.csv"
    (folder / "config.json").write_text(json.dumps(record))
    moved = dataclasses.replace(network, folder=folder).with_data_dir("/home/me/elsewhere")
    export_folder(moved, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())["config"]
    assert config["init_from"] == "a"
    assert config["dataset"]["test_exclude_file"] == "list.txt"
    text = (tmp_path / "out/config.json").read_text() + (tmp_path / "out/README.md").read_text()
    assert "folder:photos" in text
    assert "/home/me" not in text


@pytest.mark.parametrize("name", [*weights_folder.CHECKED, weights_folder.SUMS])
def test_missing_or_damaged_file(folder, name, capsys):
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    err = usage_error(capsys, predict.main, [f"--workdir={folder}", __file__])
    assert "is damaged (its SHA-256 is not the one in SHA256SUMS): export or download" in err
    path.unlink()
    err = usage_error(capsys, predict.main, [f"--workdir={folder}", __file__])
    assert f"{folder} has no {name}: a folder of weights must hold config.json, " in err


def test_weights_that_are_no_weights(network, folder):
    files = {name: (folder / name).read_bytes() for name in weights_folder.CHECKED}
    for name, data in (("model.safetensors", b"none"), ("config.json", b"{}")):
        weights_folder.write_weights_folder(folder, files | {name: data})
        with pytest.raises(UsageError, match=r"copy is damaged .*: export or download the folder"):
            rattn_jax.load(folder)


def test_a_folder_that_cannot_be_written_or_read(folder, tmp_path):
    files = {name: (folder / name).read_bytes() for name in weights_folder.CHECKED}
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/x cannot be written \(Not a directory\): choose"):
        weights_folder.write_weights_folder(epath.Path(tmp_path / "file/x"), files)
    with pytest.raises(UsageError, match=r"file is or holds something else: choose a new folder"):
        export_folder(rattn_jax.load(folder), epath.Path(tmp_path / "file"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(UsageError, match=r"model.safetensors is damaged \(Is a directory\)"):
        rattn_jax.load(folder)


def test_wrong_names(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    err = usage_error(capsys, predict.main, ["--pretrained=attention56_digit", __file__])
    assert "'attention56_digit' is neither a folder nor a pretrained network: did you mean" in err
    assert f"or one of {', '.join(rattn_jax.list_pretrained())}" in err
    err = usage_error(capsys, predict.main, ["--pretrained=hf://only-one-part", __file__])
    assert "must be hf://OWNER/NAME[@REVISION]" in err
    (tmp_path / DIGITS).mkdir()
    with pytest.raises(UsageError, match="holds no run"):  # one's own folder comes first
        rattn_jax.load(DIGITS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--evaluate"], "need --format=safetensors"),
        (["--format=safetensors", "--masks"], "--masks is for the other formats"),
    ],
)
def test_options_of_other_formats(capsys, tmp_path, options, message):
    with pytest.raises(SystemExit) as stopped:
        export.main([f"--pretrained={DIGITS}", f"--out={tmp_path / 'x'}", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_hub_library_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"which is not installed: pip install -e '\.\[hub\]'"):
        find_folder("hf://someone/network")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP API as a download asks for, of one repository."""

    folder: Path
    commit = "0123456789" * 4

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        body = None
        if "silent" in parts:
            self.close_connection = True
            return
        if parts[:4] == ["api", "models", "someone", "digits"]:
            names = [file.name for file in self.folder.iterdir()]
            if parts[4] == "tree":
                sizes = {name: (self.folder / name).stat().st_size for name in names}
                found = [
                    {"type": "file", "path": name, "size": size, "oid": self.commit}
                    for name, size in sizes.items()
                ]
            else:
                siblings = [{"rfilename": name} for name in names]
                found = {"id": "someone/digits", "sha": self.commit, "siblings": siblings}
            body = json.dumps(found).encode()
        elif parts[:3] == ["someone", "digits", "resolve"]:
            body = (self.folder / parts[4]).read_bytes()
        self.send_response(200 if body is not None else 404)
        if body is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", f'"{hash(body)}"')
        self.send_header("Content-Length", str(len(body or b"")))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    do_HEAD = do_GET  # noqa: N815


_LOADS = """
import rattn_jax
print(rattn_jax.load("hf://someone/digits").step)
for name in ("unknown", "silent"):
    try:
        rattn_jax.load(f"hf://someone/{name}")
    except rattn_jax.UsageError as error:
        print(error)
"""


def test_network_of_a_hub(folder, tmp_path):
    pytest.importorskip("huggingface_hub", reason="an optional dependency")
    handler = type("Handler", (Hub,), {"folder": folder})
    (folder / "other.bin").write_bytes(b"not asked for")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        hub = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(  # the library reads its address once
            [sys.executable, "-c", _LOADS],
            env=os.environ | hub,
            capture_output=True,
            text=True,
            check=False,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    found, unknown, silent = done.stdout.splitlines()
    assert found == "600"
    assert unknown.startswith("hf://someone/unknown cannot be downloaded (RepositoryNotFoundError")
    assert silent.startswith("hf://someone/silent cannot be downloaded (")
    assert silent.endswith("or download the folder by hand and give its path")
    assert not list((tmp_path / "hub").rglob("other.bin"))
