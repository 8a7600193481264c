import dataclasses
import json
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

from rattn_jax import explain
from rattn_jax.config.load import parse_config
from rattn_jax.data import Dataset
from rattn_jax.data.batches import Normalization
from rattn_jax.data.dataset import ArraySource
from rattn_jax.errors import UsageError
from rattn_jax.inference import ablation
from rattn_jax.inference import examples as examples_module
from rattn_jax.inference.attention_sheet import draw_image
from rattn_jax.inference.network import Classifier
from rattn_jax.models import create_model, init_variables
from rattn_jax.models.attention import ModuleMaps, SoftMask
from rattn_jax.report import mask_sheet
from rattn_jax.report.mask_sheet import draw_sheet, strongest_channels
from tests.tiny import KEYWORDS, make_config

COUNT, BATCH_SIZE = 40, 16  # of the examples; the last batch is not full
MODULES = ["stage1/module1", "stage1/module2"]


def make_network(model, variables, images):
    return Classifier(
        folder=epath.Path("run"),
        step=3,
        config=parse_config(make_config()),
        model=model,
        variables=variables,
        class_names=tuple("abcdefghij"),
        image_size=images.shape[1],
        crop_fraction=1.0,
        normalization=Normalization(np.float32(127), np.float32(1 / 64)),
    )


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(0).randint(0, 256, (COUNT, 8, 8, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def network(images):
    """A network with random parameters whose answers differ from image to image."""
    keywords = KEYWORDS | {"modules_per_stage": (2,)}
    model = create_model("attention56_cifar", 10, **keywords)
    variables = init_variables(model, jax.random.key(0), (8, 8, 3))
    # Masks that vary: kernels many times as large before the sigmoid.
    for module in variables["params"]["stage1"].values():
        if "mask" in module:
            module["mask"]["linear2"]["kernel"] *= 100
    network = make_network(model, variables, images)
    mean = np.mean(network.logits(variables, images), axis=0)
    variables["params"]["classifier"]["bias"] -= mean
    return network


@pytest.fixture
def examples(network, images, monkeypatch):
    """A test split whose labels are the network's answers; returns images and labels as drawn."""
    labels = network.predict(images).argmax(axis=1).astype(np.int32)
    assert len(set(labels.tolist())) > 3
    source = ArraySource("digits/test", images, labels)
    dataset = Dataset("digits", network.class_names, source, source, 8)
    monkeypatch.setattr(examples_module, "build_dataset", lambda config: dataset)
    order = np.random.RandomState(0).permutation(COUNT)
    return images[order], labels[order]


def wrong_share(network, images, labels, masks):
    """The error when the modules in `masks` give these masks."""

    def replace(run, arguments, keywords, context):
        name = "/".join(context.module.path[:-1])
        is_mask = isinstance(context.module, SoftMask) and context.method_name == "__call__"
        return masks[name] if is_mask and name in masks else run(*arguments, **keywords)

    with nn.intercept_methods(replace):
        logits = network.logits(network.variables, images)
    return np.mean(np.argmax(logits, axis=1) != labels)


def test_masks_are_replaced(network, examples):
    images, labels = examples
    found = ablation.ablate_masks(network, batch_size=BATCH_SIZE)
    assert (found.split, found.num_examples, found.error) == ("test", COUNT, 0)
    assert [row.module for row in found.modules] == [*MODULES, "all"]
    _, maps = network.attention(images)
    masks = {name: maps[name].mask for name in MODULES}
    starts = range(0, COUNT, BATCH_SIZE)
    partners = np.concatenate(
        [np.roll(np.arange(start, min(start + BATCH_SIZE, COUNT)), 1) for start in starts]
    )
    for row, names in zip(found.modules, ([MODULES[0]], [MODULES[1]], MODULES), strict=True):
        expected = {
            "zero": {name: np.zeros_like(masks[name]) for name in names},
            "mean": {
                name: np.broadcast_to(masks[name].mean(0), masks[name].shape) for name in names
            },
            "shuffled": {name: masks[name][partners] for name in names},
        }
        assert row.errors == {
            kind: pytest.approx(wrong_share(network, images, labels, replaced))
            for kind, replaced in expected.items()
        }
        assert row.errors["zero"] > 0  # or the test would see nothing
        assert row.errors["shuffled"] > 0
        if names == MODULES:
            assert row.mask_mean is None
        else:
            assert row.mask_mean == pytest.approx(masks[names[0]].mean(), rel=1e-5)


def test_replacing_by_its_own_mask_changes_nothing(network, examples):
    found = ablation.ablate_masks(network, batch_size=BATCH_SIZE, num_examples=1)
    assert found.num_examples == 1
    assert all(row.errors["mean"] == row.errors["shuffled"] == 0 for row in found.modules)


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [(40, 16, 16), (33, 16, 15), (3, 2, 3), (7, 2, 4), (7, 3, 4), (2, 5, 5), (1, 5, 5), (5, 9, 9)],
)
def test_no_image_is_alone_in_a_batch(count, batch_size, expected):
    assert ablation._leaving_none_alone(count, batch_size) == expected


def test_ablation_command(network, examples, capsys, monkeypatch):
    monkeypatch.setattr(explain, "load", lambda *_: network)
    arguments = ["--workdir=run", "--ablate", "--batch-size=40"]
    explain.main([*arguments, "--json"])
    as_json = json.loads(capsys.readouterr().out)
    assert as_json["error"] == 0
    assert [row["module"] for row in as_json["modules"]] == [*MODULES, "all"]
    explain.main(arguments)
    heading, _, trained, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["test", "error,", "%", "mean", "of", "mask", *ablation.REPLACEMENTS]
    assert trained.split() == ["as", "trained", "0.00"]
    zero = as_json["modules"][0]["errors"]["zero"]
    assert rows[0].split()[2:4] == [f"{100 * zero:.2f}", f"(+{100 * zero:.2f})"]


def test_ablation_on_what_is_not_there(network, examples, monkeypatch):
    with pytest.raises(UsageError, match="batch_size=1: must be at least 2, since masks are exch"):
        ablation.ablate_masks(network, batch_size=1)
    with pytest.raises(UsageError, match="split 'validation' is unknown: this run has train, test"):
        ablation.ablate_masks(network, "validation")
    other = Dataset("digits", ("a", "b"), None, None, 8)
    monkeypatch.setattr(examples_module, "build_dataset", lambda config: other)
    with pytest.raises(UsageError, match="digits has other classes than those of the run"):
        ablation.ablate_masks(network)


def test_every_chosen_example_is_excluded(network, examples, monkeypatch):
    dataset = dataclasses.replace(network.config.dataset, test_exclude_file="list.txt")
    config = dataclasses.replace(network.config, dataset=dataset)
    excluding = dataclasses.replace(network, config=config)
    monkeypatch.setattr(examples_module, "exclusions", lambda file, source: frozenset({""}))
    for measure in (ablation.ablate_masks, examples_module.split_logits):
        with pytest.raises(
            UsageError, match=r"file='list.txt' excludes every example of the split"
        ):
            measure(excluding, "test")


def make_maps(size, channels, mask):
    generator = np.random.RandomState(0)
    trunk = generator.standard_normal((size, size, channels)).astype(np.float32)
    mask = np.full_like(trunk, mask)
    return ModuleMaps(mask, trunk, (1 + mask) * trunk)


@pytest.mark.parametrize(("size", "side"), [(8, 128), (32, 128), (224, 160)])
def test_sheet(size, side):
    image = np.random.RandomState(1).randint(0, 256, (size, size, 3)).astype(np.uint8)
    one, zero, half = "stage1/module1", "stage1/module2", "stage2/module1"  # by their masks
    maps = {
        one: make_maps(size // 4, 4, 1.0),
        zero: make_maps(size // 4, 4, 0.0),
        half: make_maps(size // 8, 9, 0.5),
    }
    channels = {one: [1, 3], zero: [2], half: [8]}
    sheet = draw_sheet(image, ["a very long\nname" * 12, "second"], maps, channels)
    pixels = np.asarray(sheet)
    method = Image.Resampling.NEAREST if size < side else Image.Resampling.LANCZOS
    shown = np.asarray(Image.fromarray(image).resize((side, side), method))

    def panel(x, y):
        return pixels[y : y + side, x : x + side]

    np.testing.assert_array_equal(panel(mask_sheet._MARGIN, mask_sheet._MARGIN), shown)
    step = side + mask_sheet._GAP
    left = mask_sheet._MARGIN + mask_sheet._LABEL
    right = left + 4 * step + mask_sheet._BETWEEN + mask_sheet._LABEL
    top = mask_sheet._MARGIN + side + mask_sheet._BETWEEN + mask_sheet._HEADING
    row = step + mask_sheet._CAPTION
    below = top + 3 * row + mask_sheet._BETWEEN + mask_sheet._HEADING
    middle, yellow, violet = (33, 145, 140), (253, 231, 37), (68, 1, 84)  # of viridis
    for x, y, count, colour in (
        (left, top, 3, yellow),
        (left, below, 2, violet),
        (right, top, 2, middle),
    ):
        for i in range(count):
            mask = panel(x + step, y + i * row)
            assert np.abs(mask.astype(int) - colour).max() <= 3
            # A mask that is the same everywhere does not dim the image.
            np.testing.assert_array_equal(panel(x + 2 * step, y + i * row), shown)
    # Where the mask is 0, features come out as they went in.
    np.testing.assert_array_equal(panel(left, below), panel(left + 3 * step, below))
    assert (panel(left, top) != panel(left + 3 * step, top)).any()
    assert sheet.height == below + 2 * row + mask_sheet._BETWEEN


def test_image_is_dark_where_the_mask_is_low():
    image = np.full((8, 8, 3), 200, np.uint8)
    maps = make_maps(8, 1, 0.0)
    maps.mask[:, 4:] = 1
    pixels = np.asarray(draw_sheet(image, [""], {"stage1/module1": maps}, {"stage1/module1": []}))
    bright, dark = ((pixels == value).all(axis=2).sum() for value in (200, 30))
    assert bright >= 128 * 128 + 128 * 48
    assert dark >= 128 * 48


def test_strongest_channels():
    trunk = np.array([1, -9, 3, 2], np.float32) * np.ones((2, 2, 1), np.float32)
    mask = np.array([0.5, 0.5, 0.1, 0.9], np.float32) * np.ones((2, 2, 1), np.float32)
    assert strongest_channels(ModuleMaps(mask, trunk, trunk), 3) == [1, 3, 0]


def test_sheets_show_images_upright(network, images, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it to the right
    for folder, pixels, tag in (
        ("turned", images[0], exif),
        ("upright", np.rot90(images[0], -1), None),
        ("stored", images[0], None),
    ):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "x.png", exif=tag)
    turned, upright, stored = (
        np.asarray(draw_image(network, epath.Path(tmp_path / folder / "x.png")))
        for folder in ("turned", "upright", "stored")
    )
    np.testing.assert_array_equal(turned, upright)
    assert (stored != upright).any()


def test_picture_command(network, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(explain, "load", lambda *_: network)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(images[0]).save(tmp_path / folder / "x.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = ["--workdir=run", f"--image={tmp_path}/a/x.png", "--out=~/new/out"]
    explain.main([*arguments, "--image", f"{tmp_path}/b/x.png", "--channels=0,7"])
    written = capsys.readouterr().out.splitlines()
    out = tmp_path / "new" / "out"
    assert written == [f"{out}/x_attention.png", f"{out}/x_attention-2.png"]
    with Image.open(written[0]) as sheet:
        three_rows = sheet.height
    explain.main([*arguments, "--channels=7"])
    with Image.open(written[0]) as sheet:
        assert sheet.height < three_rows


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "either --image or --ablate is needed"),
        (["--image=x.png", "--surgery"], 2, "either --image or --ablate is needed"),
        (["--image=x.png", "--json"], 2, "--json is for --ablate: leave it out"),
        (["--image=x.png", "--batch-size=3"], 2, "--batch-size is for --ablate: leave it out"),
        (["--ablate", "--channels=1"], 2, "--channels is for --image: leave it out"),
        (["--image=none.png"], 1, "none.png cannot be read"),
        (["--image={file}", "--channels=1,x"], 2, "'1,x': must be numbers from 0"),
        (["--image={file}", "--channels=0,8"], 2, "--channels=8: must be below 8"),
        (["--image={file}", "--out={file}"], 2, "cannot be written (File exists)"),
    ],
)
def test_bad_usage(network, tmp_path, capsys, monkeypatch, arguments, status, message):
    monkeypatch.setattr(explain, "load", lambda *_: network)
    file = tmp_path / "file.png"
    Image.new("RGB", (8, 8)).save(file)
    with pytest.raises(SystemExit) as stopped:
        explain.main(["--workdir=run", *(word.format(file=file) for word in arguments)])
    assert stopped.value.code == status
    assert message in capsys.readouterr().err


def test_network_without_attention(images):
    model = create_model("wrn16_8_cifar", 10)
    shape = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    init = partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), shape)
    with pytest.raises(UsageError, match="has no attention modules"):
        ablation.ablate_masks(make_network(model, variables, images))
