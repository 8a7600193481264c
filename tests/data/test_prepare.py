"""Datasets written in TFDS's format, from folders and from ImageNet's archives."""

import dataclasses
import io
import json
import os

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from rattn_jax import prepare as command
from rattn_jax.data import imagenet_archives, open_dataset, prepare
from rattn_jax.data.dataset import ArraySource, Example
from rattn_jax.data.decoding import BadImageError, decode_image
from rattn_jax.data.stored_image import stored_image
from tests.data.images import encode, pixels, write_tar

CLASSES = ("n01440764", "n01443537", "n15075141")  # numbers 0, 1 and 999


@pytest.fixture
def archives(tmp_path):
    """Six training images, of which one is CMYK and one is no image, and two to validate."""
    inner = {}
    for number, name in enumerate(CLASSES):
        images = {f"{name}_{i}.JPEG": encode(pixels(seed=10 * number + i)) for i in (1, 2)}
        inner[f"{name}.tar"] = write_tar(tmp_path / name, images).read_bytes()
    damaged = {"n15075141_1.JPEG": encode(pixels(seed=3), mode="CMYK"), "n15075141_2.JPEG": b"no"}
    inner["n15075141.tar"] = write_tar(tmp_path / "damaged", damaged).read_bytes()
    validation = {
        f"ILSVRC2012_val_0000000{number}.JPEG": encode(pixels(seed=number)) for number in (2, 1)
    }
    return {
        "train": write_tar(tmp_path / "ILSVRC2012_img_train.tar", inner),
        "validation": write_tar(tmp_path / "ILSVRC2012_img_val.tar", validation),
    }


def run(what, out, **flags):
    """Exit status of the command; 0 if it returns."""
    given = [f"--{flag.replace('_', '-')}={value}" for flag, value in flags.items()]
    try:
        command.main([what, f"--out={out}", "--threads=2", *given])
    except SystemExit as leaving:
        return leaving.code
    return 0


def test_imagenet_from_its_archives(tmp_path, archives, capsys):
    assert run("imagenet", tmp_path / "tfds", **archives) == 0
    said = capsys.readouterr()
    assert "train: 6 images, and ILSVRC 2012 has 1,281,167" in said.err
    assert "n15075141_2.JPEG (" in said.err
    assert f"--config.data_dir={tmp_path}/tfds" in said.out
    found = open_dataset("imagenet2012", str(tmp_path / "tfds"))
    assert found.class_names[999] == "n15075141"
    assert (len(found.train), len(found.test)) == (5, 2)
    examples = {found.train[i].file_name: found.train[i] for i in range(5)}
    assert {name: example.label for name, example in examples.items()} == {
        f"{name}_{i}.JPEG": label
        for name, label in zip(CLASSES, (0, 1, 999), strict=True)
        for i in (1, 2)
        if (name, i) != ("n15075141", 2)
    }
    assert examples["n01440764_1.JPEG"].image == encode(pixels(seed=1))  # as it was
    cmyk = examples["n15075141_1.JPEG"].image
    assert Image.open(io.BytesIO(cmyk)).mode == "RGB"
    original = decode_image(encode(pixels(seed=3), mode="CMYK"))
    np.testing.assert_allclose(decode_image(cmyk), original, atol=24)
    # The first two labels of the published list: its images are numbered from 1.
    assert {e.file_name: e.label for e in (found.test[0], found.test[1])} == {
        "ILSVRC2012_val_00000001.JPEG": 65,
        "ILSVRC2012_val_00000002.JPEG": 970,
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train": {"README": b""}}, "has 'README', and must have n01440764.tar"),
        ({"train": {}}, "has no images"),
        ({"validation": {"val_1.JPEG": b"x"}}, "must have ILSVRC2012_val_00000001.JPEG"),
    ],
)
def test_another_archive_is_refused(tmp_path, archives, capsys, files, message):
    for name, content in files.items():
        archives[name] = write_tar(tmp_path / "other.tar", content)
    assert run("imagenet", tmp_path / "tfds", **archives) == 2
    assert message in capsys.readouterr().err


def test_a_download_that_was_cut_off_is_refused(tmp_path, archives, capsys):
    os.truncate(archives["train"], archives["train"].stat().st_size // 2)
    assert run("imagenet", tmp_path / "tfds", **archives) == 2
    assert "is damaged, cut off or no tar file" in capsys.readouterr().err
    assert run("imagenet", tmp_path / "tfds", **archives | {"train": tmp_path / "none.tar"}) == 2
    assert "cannot be read (No such file or directory)" in capsys.readouterr().err


def test_archives_below_home(archives, monkeypatch):
    monkeypatch.setenv("HOME", str(archives["train"].parent))
    names = {split: f"~/{file.name}" for split, file in archives.items()}
    assert len(imagenet_archives.open_train(names["train"])) == 6
    assert len(imagenet_archives.open_validation(names["validation"])) == 2


def test_the_checksum_of_the_published_file(archives):
    with pytest.raises(prepare.UsageError, match=r"has the MD5 .* download it again"):
        imagenet_archives.check_md5(archives["train"], "train")
    with pytest.raises(prepare.UsageError, match=r"none cannot be read \(No such file"):
        imagenet_archives.check_md5("none", "train")


def contents(images=3, split="train", **changes):
    stack = np.stack([pixels(8, 8, seed) for seed in range(images)])
    labels = np.arange(images, dtype=np.int32) % 2
    source = ArraySource(f"set/{split}", stack, labels)
    keywords = {"name": "tiny", "version": "1.0.0", "class_names": ("ant", "bee")}
    return prepare.Content(**keywords | {"splits": {split: source, "test": source}} | changes)


def write(content, root):
    return prepare.prepare(content, root, threads=2, say=print, progress=lambda text: None)


def test_a_stopped_preparation_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_EXAMPLES_IN_A_FILE", 2)
    written, write_one = [], prepare._write

    def stop_at_the_third(content, features, file, count, say):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file.path.name)
        write_one(content, features, file, count, say)

    monkeypatch.setattr(prepare, "_write", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write(contents(6), tmp_path)
    assert not (tmp_path / "tiny/1.0.0").exists()
    with pytest.raises(prepare.UsageError, match="half of a preparation of other images"):
        write(contents(5), tmp_path)
    with pytest.raises(prepare.UsageError, match="half of a preparation of other images"):
        write(contents(6, contents="other sizes"), tmp_path)
    plan = tmp_path / "tiny/incomplete.1.0.0/plan.json"
    before = json.loads(plan.read_text())
    del before["contents"]  # as of an earlier version, which goes on
    plan.write_text(json.dumps(before))
    monkeypatch.setattr(prepare, "_write", lambda *args: (written.append(0), write_one(*args)))
    assert write(contents(6), tmp_path) == tmp_path / "tiny/1.0.0"
    assert len(written) == 6  # each file once
    found = open_dataset("tiny", str(tmp_path))
    images = [decode_image(found.train[i].image) for i in range(6)]
    expected = {pixels(8, 8, seed).tobytes() for seed in range(6)}
    assert {image.tobytes() for image in images} == expected
    assert [p.name for p in (tmp_path / "tiny").iterdir()] == ["1.0.0"]
    with pytest.raises(prepare.UsageError, match="is there already"):
        write(contents(6), tmp_path)


def test_a_file_that_reads_back_otherwise_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_records", lambda path: [b"other"] * 3)
    with pytest.raises(prepare.UsageError, match="reads back otherwise"):
        write(contents(), tmp_path)
    assert not list((tmp_path / "tiny/incomplete.1.0.0").glob("tiny-*"))


def test_names_that_tfds_cannot_take(tmp_path):
    with pytest.raises(prepare.UsageError, match="--name=My photos: must be lower-case letters"):
        write(contents(name="My photos"), tmp_path)


def test_names_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    with pytest.raises(prepare.UsageError, match=r"the class 'caf\\udce9' has a name that is not"):
        write(contents(class_names=("ant", name)), tmp_path)

    class Named(ArraySource):
        def name(self, position):
            return f"{name}-{position}"

        def __getitem__(self, position):
            example = super().__getitem__(position)
            return dataclasses.replace(example, path=f"{name}-{position}")

    stack, labels = np.zeros((2, 8, 8, 3), np.uint8), np.arange(2, dtype=np.int32)
    write(contents(splits=dict.fromkeys(("train", "test"), Named("x", stack, labels))), tmp_path)
    found = open_dataset("tiny", str(tmp_path))
    assert found.train[0].file_name.startswith("caf\\udce9-")


@pytest.mark.parametrize("name", ["golden\nretriever", "ant ", "\xa0", "\ud83d", "a\rb"])
def test_names_that_tfds_does_not_keep(tmp_path, name):
    with pytest.raises(prepare.UsageError, match="rename it"):
        write(contents(class_names=("bee", name)), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_an_image_that_may_be_readable_later_is_not_left_out(tmp_path, error):
    errors = [error]

    class Disturbed(ArraySource):
        def __getitem__(self, position):
            if errors and position == 1:
                raise errors.pop()
            return super().__getitem__(position)

    stack, labels = np.zeros((3, 8, 8, 3), np.uint8), np.array([0, 0, 1], np.int32)
    content = contents(splits={"train": Disturbed("x", stack, labels)})
    with pytest.raises(prepare.UsageError, match=r"x\[1\].* run again, and it goes on"):
        write(content, tmp_path)
    write(content, tmp_path)
    found = tfds.builder_from_directory(tmp_path / "tiny/1.0.0")
    assert found.info.splits["train"].num_examples == 3


def test_a_damaged_plan(tmp_path):
    (tmp_path / "tiny/incomplete.1.0.0").mkdir(parents=True)
    (tmp_path / "tiny/incomplete.1.0.0/plan.json").touch()
    with pytest.raises(prepare.UsageError, match=r"plan.json is damaged: remove"):
        write(contents(), tmp_path)


def test_a_full_disk_at_the_beginning_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    def fill(path, text):
        path.write_bytes(b"{")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr(type(epath.Path("x")), "write_text", fill)
        with pytest.raises(prepare.UsageError, match="No space left on device"):
            write(contents(), tmp_path)
    assert write(contents(), tmp_path) == tmp_path / "tiny/1.0.0"


def test_what_is_no_example_is_left_out(tmp_path, capsys):
    class Odd(ArraySource):
        def __getitem__(self, position):
            return super().__getitem__(position) if position else {}["example"]

    stack, labels = np.zeros((3, 8, 8, 3), np.uint8), np.array([0, 0, 1], np.int32)
    write(contents(splits={"train": Odd("x", stack, labels)}), tmp_path)
    assert "left out: x[0] (KeyError: 'example')" in capsys.readouterr().out


def test_a_name_that_means_another_dataset_is_refused(tmp_path, capsys):
    assert run("images", tmp_path, data=tmp_path, name="digits") == 2
    assert "--name=digits is the name of a dataset that rattn_jax knows" in capsys.readouterr().err


def test_a_folder(tmp_path, capsys):
    for name in ("cat", "dog"):
        for split, seeds in (("train", (0, 1, 2)), ("test", (3,))):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for seed in seeds:
                file = tmp_path / "photos" / split / name / f"{seed}.png"
                file.write_bytes(encode(pixels(100, 80, seed), "PNG"))
    flags = {"data": tmp_path / "photos", "name": "photos", "shorter_side": 40}
    assert run("images", tmp_path / "tfds", **flags) == 0
    found = open_dataset("photos", str(tmp_path / "tfds"))
    assert (found.class_names, len(found.train), len(found.test)) == (("cat", "dog"), 6, 2)
    assert {decode_image(found.train[i].image).shape for i in range(6)} == {(50, 40, 3)}


def test_images_are_known_by_their_sizes_too(tmp_path, archives, monkeypatch):
    found = []

    def keep(content, *args, **keywords):
        found.append(content.contents)
        return tmp_path

    monkeypatch.setattr(command, "prepare", keep)
    for color in ("red", "green", "green"):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            for number in range(2):
                image = Image.new("RGB", (8, 8), color)
                image.save(tmp_path / f"photos/{name}/{number}.png")
        run("images", tmp_path / "out", data=tmp_path / "photos", name="photos")
    assert found[0] != found[1] == found[2]
    run("imagenet", tmp_path / "out", **archives)
    assert len(found[3]) == len(found[0])


def test_several_classes_an_image_are_refused(tmp_path, capsys):
    rows = []
    for seed in range(4):
        (tmp_path / f"{seed}.png").write_bytes(encode(pixels(8, 8, seed), "PNG"))
        rows.append(
            f'{{"file_name": "{seed}.png", "label": ["cat", "{"indoors" if seed % 2 else "dog"}"]}}'
        )
    (tmp_path / "labels.jsonl").write_text("\n".join(rows))
    assert run("images", tmp_path / "tfds", data=tmp_path / "labels.jsonl", name="x") == 2
    assert "has several classes an image" in capsys.readouterr().err


def test_flags_of_the_other_kind_are_refused(tmp_path, capsys):
    assert run("images", tmp_path, data=tmp_path) == 2
    assert "images needs --name" in capsys.readouterr().err
    assert run("images", tmp_path, data=tmp_path, name="x", train="y.tar") == 2
    assert "--train is for imagenet: leave it out" in capsys.readouterr().err
    given = {"data": tmp_path, "name": "x"}
    with pytest.raises(SystemExit):
        command.main(
            ["images", "--check-md5", f"--out={tmp_path}", *(f"--{k}={given[k]}" for k in given)]
        )
    assert "--check-md5 is for imagenet: leave it out" in capsys.readouterr().err


def test_a_command_that_is_stopped_says_that_it_goes_on(tmp_path, archives, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "prepare", stop)
    assert run("imagenet", tmp_path / "tfds", **archives) == 75
    assert "stopped: run again, and it goes on" in capsys.readouterr().err


def stored(image, shorter_side=None, **keywords):
    example = Example(0, "a", "a", image, 0, 0, **keywords)
    return stored_image(example, shorter_side, only_jpeg=False)


def turned(kind, **options):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(pixels(20, 40), kind, exif=exif, **options)


def test_how_images_are_stored():
    jpeg, png = encode(pixels(20, 40)), encode(pixels(20, 40), "PNG")
    assert stored(jpeg) == jpeg
    assert stored(png, 20) == png
    assert stored(turned("JPEG")) == turned("JPEG")  # as TFDS's own readers take it
    for file in (turned("PNG"), encode(pixels(20, 40), "WEBP", lossless=True, exif=b"")):
        image = stored(file, upright=True)
        assert Image.open(io.BytesIO(image)).format == "PNG"
    upright = np.rot90(pixels(20, 40), -1)
    np.testing.assert_array_equal(decode_image(stored(turned("PNG"), upright=True)), upright)
    small = decode_image(stored(jpeg, 10))
    wanted = Image.fromarray(pixels(20, 40)).resize((20, 10), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(small, np.asarray(wanted), atol=24)
    with pytest.raises(BadImageError):
        stored(b"no image")
