import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import rattn_jax
from rattn_jax import predict
from rattn_jax.data import open_dataset
from rattn_jax.data.batches import normalize
from rattn_jax.data.boxes import center_box
from rattn_jax.data.crops import load_crop
from rattn_jax.errors import UsageError
from rattn_jax.train import train_and_evaluate
from tests.tiny import make_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder and final state of a run on two devices that keeps averages."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = make_config(ema_decay=0.9, num_train_steps=2, log_every_steps=2)
    state = train_and_evaluate(config, folder, jax.devices()[:2])
    return folder, state


@pytest.fixture(scope="module")
def network(run):
    return rattn_jax.load(run[0])


@pytest.fixture(scope="module")
def split():
    return open_dataset("digits").test


def images_of(split, count):
    return np.stack([split[i].image for i in range(count)])


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_network_is_the_run_s(run, network):
    assert network.step == 2
    assert network.class_names == tuple("0123456789")
    assert (network.image_size, network.crop_fraction) == (8, 1.0)
    jax.tree.map(np.testing.assert_array_equal, network.variables, run[1].ema)
    assert network.model.widths == (8,)
    assert not network.model.scan_modules


def test_predictions_have_the_error_that_training_has_recorded(run, network, split):
    probabilities = network.predict(images_of(split, len(split)), batch_size=120)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    error = np.mean(probabilities.argmax(axis=1) != split.labels())
    rows = [json.loads(line) for line in (run[0] / "metrics.jsonl").read_text().splitlines()]
    # By another program: where two classes are about as likely, one answer may differ.
    assert abs(error - rows[-1]["error_top1"]) < 1.5 / len(split)
    assert rows[-1]["split"] == "test"


def test_folded_batch_norm_predicts_the_same(run, network, split):
    images = images_of(split, 5)
    folded = rattn_jax.load(run[0], fold_batch_norm=True)
    assert folded.variables.keys() == {"params", "folded"}
    np.testing.assert_allclose(folded.predict(images), network.predict(images), atol=1e-5)
    (probabilities, maps), (expected, expected_maps) = (
        loaded.attention(images) for loaded in (folded, network)
    )
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    for name, found in maps.items():
        np.testing.assert_allclose(found.mask, expected_maps[name].mask, atol=1e-5)


def test_batches_and_padding_change_nothing(network, split):
    images = images_of(split, 5)
    whole = network.predict(images)
    np.testing.assert_allclose(network.predict(images, batch_size=2), whole, atol=1e-6)
    assert network.predict([]).shape == (0, 10)
    expected = jax.nn.softmax(
        network.model.apply(
            network.variables, normalize(images, network.normalization), train=False
        )
    )
    np.testing.assert_allclose(whole, expected, atol=1e-6)


def test_folder_is_left_as_it_is(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    leftover = folder / "checkpoints" / "7.orbax-checkpoint-tmp"
    leftover.mkdir()
    (leftover / "part").write_text("half")
    before = contents(folder)
    assert rattn_jax.load(folder).step == 2
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("config.json", "holds no run: it has no config.json"),
        (
            "normalization.npz",
            "has no normalization.npz, because the run is of an older version",
        ),
        ("checkpoints", "has no checkpoint yet"),
    ],
)
def test_folder_that_lacks_something(run, tmp_path, removed, message):
    folder = shutil.copytree(run[0], tmp_path / "run")
    path = folder / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UsageError, match=message):
        rattn_jax.load(folder)


def test_damaged_normalization(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    for data in (b"", b"PK\x03\x04 no archive", b"text"):
        (folder / "normalization.npz").write_bytes(data)
        with pytest.raises(UsageError, match=r"normalization.npz is damaged .*remove it"):
            rattn_jax.load(folder)


def save_all_modes(folder):
    """Files of odd modes and sizes; returns their paths."""
    pixels = np.random.RandomState(0).randint(0, 256, (23, 17, 4)).astype(np.uint8)
    rgb = Image.fromarray(pixels[..., :3])
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation
    rgb.save(folder / "0.jpg", exif=turned)
    rgb.convert("L").save(folder / "1.png")
    rgb.convert("CMYK").save(folder / "2.jpg")
    rgb.quantize(7).save(folder / "3.png", transparency=2)
    Image.fromarray(pixels).save(folder / "4.webp", lossless=True)
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "5.png")
    rgb.resize((300, 200)).save(folder / "6.jpg")
    rgb.resize((1, 40)).save(folder / "7.png")
    return sorted(folder.iterdir())


def test_any_image_is_decoded_as_evaluation_decodes_it(network, tmp_path):
    files = save_all_modes(tmp_path)
    expected = np.stack(
        [load_crop(file.read_bytes(), center_box(1.0), 8, upright=True) for file in files]
    )
    for form in (str, lambda file: file.read_bytes(), lambda file: file):
        np.testing.assert_array_equal(
            np.stack([network.decode(form(file)) for file in files]), expected
        )
    for i in (1, 3, 4, 5, 7):  # those whose decoder has no freedom
        with Image.open(files[i]) as image:
            np.testing.assert_array_equal(network.decode(image), expected[i])
    assert network.predict(files).shape == (8, 10)


def test_pixels_of_earlier_runs(network, tmp_path):
    """They were resized in another way, and not turned upright."""
    dataset = dataclasses.replace(network.config.dataset, exact_pixels=False)
    config = dataclasses.replace(network.config, dataset=dataset)
    earlier = dataclasses.replace(network, config=config)
    pixels = np.random.RandomState(0).randint(0, 256, (23, 17, 3)).astype(np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=turned)
    expected = load_crop(pixels, center_box(1.0), 8, exact=False)
    np.testing.assert_array_equal(earlier.decode(tmp_path / "a.png"), expected)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(earlier.decode(image), expected)
    np.testing.assert_array_equal(earlier.decode(pixels), expected)
    upright = np.rot90(pixels, -1)
    assert (network.decode(upright) != load_crop(upright, center_box(1.0), 8, exact=False)).any()


def test_images_are_cropped_as_in_evaluation(network):
    image = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    cropping = dataclasses.replace(network, crop_fraction=0.4)
    np.testing.assert_array_equal(cropping.decode(image), image[6:14, 11:19])


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4)])
def test_array_that_is_no_image(network, shape):
    with pytest.raises(UsageError, match=r"image is uint8 \[8, 8.*must be uint8 \[H, W, 3\]"):
        network.predict([np.zeros(shape, np.uint8)])


@pytest.mark.parametrize("image", ["a.jpg", b"data", epath.Path("a.jpg"), Image.new("L", (8, 8))])
def test_a_single_image_is_no_list(network, image):
    with pytest.raises(UsageError, match="is a single image: must be a list"):
        network.predict(image)


def test_command_keeps_the_order_and_names_what_it_cannot_read(run, network, tmp_path, capsys):
    (tmp_path / "modes").mkdir()
    files = save_all_modes(tmp_path / "modes")
    (tmp_path / "modes" / "below").mkdir()
    shutil.copy(files[0], tmp_path / "modes" / "below" / "0.jpg")
    (tmp_path / "modes/below/notes.txt").touch()
    (tmp_path / "bad.png").write_bytes(b"no image")
    arguments = [f"--workdir={run[0]}", str(files[7]), str(tmp_path / "bad.png")]
    arguments += [str(tmp_path / "modes"), "--batch-size=3"]
    with pytest.raises(SystemExit) as stopped:
        predict.main([*arguments, "--json", "--top=2"])
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if not line.endswith((" so far", " done"))] == [
        f"rattn predict: {len(files) + 3} images, left out 1: 1 .txt (such as notes.txt)",
        f"rattn predict: {tmp_path}/bad.png cannot be read: not an image of a known format, or a "
        "truncated one",
    ]
    rows = [json.loads(line) for line in out.splitlines()]
    order = [files[7], *files, tmp_path / "modes" / "below" / "0.jpg"]
    assert [row["image"] for row in rows] == [str(file) for file in order]
    expected = network.predict(order)
    for row, probabilities in zip(rows, expected, strict=True):
        best = np.argsort(-probabilities)[:2]
        assert [p["index"] for p in row["predictions"]] == best.tolist()
        assert [p["class"] for p in row["predictions"]] == [str(i) for i in best]
        found = [p["probability"] for p in row["predictions"]]
        np.testing.assert_allclose(found, probabilities[best], atol=1e-6)


def test_command_prints_a_line_an_image(run, network, tmp_path, capsys):
    files = save_all_modes(tmp_path)[:2]
    files.append(files[0].rename(tmp_path / "two\nlines.jpg"))
    del files[0]
    predict.main([f"--workdir={run[0]}", *map(str, files), "--top=99"])
    lines = capsys.readouterr().out.splitlines()
    probabilities = network.predict(files)
    for line, file, row in zip(lines, files, probabilities, strict=True):
        best = int(row.argmax())
        name = str(file).replace("\n", "\\n")
        assert line.startswith(f"{name}  {best} {row[best]:.2%}  ")
        assert line.count("%") == 10


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("none.png", "none.png: there is no such file or folder"),
        ("empty", "empty has no image: must hold files of the formats JPEG, PNG, WEBP, GIF"),
        ("bad.png", "bad.png cannot be read: an empty file"),
    ],
)
def test_nothing_to_predict(run, tmp_path, capsys, image, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(SystemExit) as stopped:
        predict.main([f"--workdir={run[0]}", str(tmp_path / image)])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rattn predict: ")
    assert message in err
    assert err.count("\n") == 1


def test_workdir_without_a_run(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        predict.main([f"--workdir={tmp_path}", __file__])
    assert stopped.value.code == 2
    assert "holds no run" in capsys.readouterr().err
