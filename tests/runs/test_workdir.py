import json
import subprocess
from dataclasses import replace

import jax
import numpy as np
import pytest
from etils import epath

from rattn_jax.config.schema import DatasetConfig, ModelConfig, RunConfig
from rattn_jax.data.batches import Normalization
from rattn_jax.data.contents import digest
from rattn_jax.errors import UsageError
from rattn_jax.runs import workdir as run_folder
from rattn_jax.runs.identity import describe_run
from rattn_jax.runs.saved_run import (
    kept_normalization,
    read_inputs,
    read_saved_run,
    record_inputs,
)
from rattn_jax.runs.workdir import (
    check_run,
    claim_run_folder,
    config_of_run,
    open_run_folder,
    read_run,
)

CONFIG = {"seed": 0, "num_train_steps": 10, "model": {"name": "a", "widths": (4, 8), "p": None}}


DATASET = {"class_names": ["cat", "dog"], "num_train": 7}


def attempt(workdir, config, dataset=DATASET, contents=None):
    """Begins to train, or goes on; returns what it says."""
    said = []
    if contents is not None:
        dataset = dataset | {"contents": digest(contents)}
    folder, run = open_run_folder(workdir, config), describe_run(config, dataset)
    check_run(folder, run, contents or {})
    claim_run_folder(folder, run, contents or {}, jax.devices()[:2], said.append)
    return said


def start(workdir, config, dataset=DATASET, contents=None):
    """Trains until there is a checkpoint."""
    attempt(workdir, config, dataset, contents)
    (epath.Path(workdir) / "checkpoints" / "3").mkdir(parents=True, exist_ok=True)


def test_record(tmp_path):
    start(tmp_path / "new" / "run", CONFIG)
    record = json.loads((tmp_path / "new" / "run" / "config.json").read_text())
    assert record["config"] == CONFIG | {"model": {"name": "a", "widths": [4, 8], "p": None}}
    assert record["dataset"] == DATASET
    assert record["devices"] == ["cpu", "cpu"]
    assert record["versions"]["jax"] == jax.__version__
    assert record["git_commit"] is None or len(record["git_commit"].split("-")[0]) == 40


@pytest.mark.parametrize(
    ("section", "name", "before", "now"),
    [
        ("dataset", "exact_pixels", False, True),
        ("dataset", "crop_files", False, True),
        ("dataset", "hold_out_by", "position", "path"),
        ("dataset", "replace_bad_examples", False, True),
        ("optimizer", "nesterov", True, False),
    ],
)
def test_a_run_of_before_goes_on_with_what_it_had(tmp_path, section, name, before, now):
    today = RunConfig()
    today = replace(today, **{section: replace(getattr(today, section), **{name: now})})
    old = today.to_dict()
    del old[section][name]
    start(tmp_path, old)
    said = []
    config = config_of_run(tmp_path, today, said.append)
    assert getattr(getattr(config, section), name) is before
    assert f"it goes on with {section}.{name}={before}" in said[0]
    start(tmp_path, config.to_dict())
    assert getattr(getattr(read_run(tmp_path)[0], section), name) is before
    with pytest.raises(UsageError, match=f"{name}={before!r}, and this config has"):
        start(tmp_path, today.to_dict())
    assert config_of_run(tmp_path / "new", today, said.append) == today


@pytest.mark.parametrize(("by_name", "by"), [(True, "name"), (False, "position")])
def test_a_run_of_before_goes_on_with_what_it_had_held_out(tmp_path, by_name, by):
    """`hold_out_by` had two values then, and another name."""
    today = RunConfig()
    old = today.to_dict()
    del old["dataset"]["hold_out_by"]
    old["dataset"]["hold_out_by_name"] = by_name
    start(tmp_path, old)
    said = []
    config = config_of_run(tmp_path, today, said.append)
    assert config.dataset.hold_out_by == by
    assert f"it goes on with dataset.hold_out_by={by}" in said[0]
    start(tmp_path, config.to_dict())
    assert read_run(tmp_path)[0].dataset.hold_out_by == by
    with pytest.raises(UsageError, match=f"hold_out_by='{by}', and this config has"):
        start(tmp_path, today.to_dict())


def test_same_config_and_free_keys_go_on(tmp_path):
    start(tmp_path, CONFIG)
    start(tmp_path, CONFIG)
    start(tmp_path, CONFIG | {"num_train_steps": 20, "keep_best": {"metric": "loss"}})
    start(tmp_path, CONFIG | {"num_train_steps": 0, "keep_best": {"metric": "error_top1"}})
    config = read_run(epath.Path(tmp_path))[0]
    assert (config.num_train_steps, config.keep_best.metric) == (20, "loss"), (
        "the newest ones, but for those of an evaluation"
    )


@pytest.mark.parametrize("off", [None, False, 0, ()])
def test_a_run_goes_on_with_a_newer_key_that_is_off(tmp_path, off):
    start(tmp_path, CONFIG)
    start(tmp_path, CONFIG | {"newer": off})
    with pytest.raises(UsageError, match="this config has newer=1"):
        start(tmp_path, CONFIG | {"newer": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed=0, and this config has seed=1: use another workdir"),
        ({"model": {"name": "a", "widths": (4, 16), "p": None}}, r"model.widths=\[4, 8\]"),
        ({"extra": 3}, "extra=None, and this config has extra=3"),
    ],
)
def test_another_config_is_refused(tmp_path, change, message):
    start(tmp_path, CONFIG)
    with pytest.raises(UsageError, match=message):
        open_run_folder(tmp_path, CONFIG | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_train": 8}, "with num_train=7, which now has 8: use another workdir, or the data"),
        ({"class_names": ["cat"]}, r"class_names=\['cat', 'dog'\], which now has \['cat'\]"),
    ],
)
def test_a_dataset_that_has_changed_is_refused(tmp_path, change, message):
    start(tmp_path, CONFIG)
    with pytest.raises(UsageError, match=message):
        start(tmp_path, CONFIG, DATASET | change)


def test_another_version_of_a_prepared_set_is_refused_and_can_be_named(tmp_path):
    def named(name):
        return RunConfig(dataset=DatasetConfig(name)).to_dict()

    old, new = ({"version": f"flowers/big:1.{i}.0"} for i in range(2))
    start(tmp_path / "before", named("flowers/big"))
    start(tmp_path / "before", named("flowers/big"), DATASET | new)  # had no record of the version
    start(tmp_path, named("flowers/big"), DATASET | old)
    message = (
        "on version flowers/big:1.0.0, and flowers/big:1.1.0 is the one that was found: use "
        "another workdir, or --config.dataset.name=flowers/big:1.0.0"
    )
    with pytest.raises(UsageError, match=message):
        start(tmp_path, named("flowers/big"), DATASET | new)
    start(tmp_path, named("flowers/big:1.0.0"), DATASET | old)
    with pytest.raises(UsageError, match=r"name='flowers/big:1\.0\.0', and this config has"):
        start(tmp_path, named("flowers/small"), DATASET | old)


LINES = '{"step": 2, "split": "test"}\n{"step": 5, "split": "train"}\n'


def test_what_never_saved_a_checkpoint_does_not_bind(tmp_path):
    config = CONFIG | {"checkpoint_every_steps": 5}
    assert attempt(tmp_path, config) == []
    assert attempt(tmp_path, config) == [], "the same once more"
    (tmp_path / "metrics.jsonl").write_text(LINES)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "notes.txt").write_text("of the user")
    (tmp_path / "checkpoints/5.orbax-checkpoint-tmp").mkdir(parents=True)  # killed as it saved
    (said,) = attempt(tmp_path, config | {"seed": 1})
    assert f"has no checkpoint: what it wrote is in {tmp_path}/earlier-1, and a new" in said
    assert read_run(epath.Path(tmp_path))[0].seed == 1
    moved = {path.name for path in (tmp_path / "earlier-1").iterdir()}
    assert moved == {"config.json", "data.json", "metrics.jsonl", "tensorboard"}
    assert (tmp_path / "earlier-1/metrics.jsonl").read_text() == LINES
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"config.json", "data.json", "notes.txt", "checkpoints", "earlier-1"}
    (said,) = attempt(tmp_path, config | {"seed": 1}, DATASET | {"num_train": 8})
    assert "earlier-2" in said, "other data is another run, too"


# Left by a run that went on past a save that failed, or whose checkpoints were removed; and by one
# whose first checkpoint could not be read back.
@pytest.mark.parametrize("left", [(5, "test"), (6, "train"), "damaged-5"])
@pytest.mark.parametrize("changes", [{}, {"seed": 1}])
def test_only_a_checkpoint_binds_and_nothing_is_lost(tmp_path, left, changes):
    config = CONFIG | {"checkpoint_every_steps": 5}
    attempt(tmp_path, config)
    (tmp_path / "metrics.jsonl").write_text(LINES)
    if isinstance(left, str):
        (tmp_path / "checkpoints" / left / "state").mkdir(parents=True)
    else:
        row = json.dumps(dict(zip(("step", "split"), left, strict=True)))
        (tmp_path / "metrics.jsonl").write_text(f"{LINES}{row}\n")
    metrics = (tmp_path / "metrics.jsonl").read_text()
    (said,) = attempt(tmp_path, config | changes, DATASET | {"num_train": 8})
    assert f"has no checkpoint: what it wrote is in {tmp_path}/earlier-1, and a new" in said
    assert (tmp_path / "earlier-1/metrics.jsonl").read_text() == metrics
    if isinstance(left, str):
        assert (tmp_path / "earlier-1/checkpoints" / left / "state").is_dir()
        assert not list(tmp_path.glob("checkpoints/*"))
    assert attempt(tmp_path, config | changes, DATASET | {"num_train": 8}) == []


def test_a_start_of_which_nothing_is_left_leaves_no_versions_or_devices(tmp_path):
    attempt(tmp_path, CONFIG)
    record = tmp_path / "config.json"
    whole = record.read_text()
    old = json.loads(whole) | {"versions": {"jax": "0.0.1"}, "devices": ["TPU"], "git_commit": "a"}
    record.write_text(json.dumps(old))
    attempt(tmp_path, CONFIG)
    assert record.read_text() == whole
    start(tmp_path, CONFIG)
    record.write_text(json.dumps(old))
    attempt(tmp_path, CONFIG)
    assert json.loads(record.read_text()) == old, "of the start whose checkpoint is there"


def test_the_commit_is_that_of_a_repository_which_holds_the_code(tmp_path, monkeypatch):
    def git(*arguments):
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *names, *arguments], cwd=tmp_path, check=True, capture_output=True)

    file = tmp_path / "site-packages" / "workdir.py"
    file.parent.mkdir()
    file.write_text("")
    monkeypatch.setattr(run_folder, "__file__", str(file))
    git("init")
    git("commit", "--allow-empty", "--message=a user's own")
    assert run_folder._git_commit() is None
    git("add", ".")
    git("commit", "--message=the code")
    assert len(run_folder._git_commit()) == 40


def on_folder(path, **changes):
    return RunConfig(dataset=DatasetConfig(f"folder:{path}"), **changes).to_dict()


FOLDER = on_folder("/a/images")
CONTENTS = {"train/cat/1.jpg": [5, 7], "train/dog/2.jpg": [5, 8]}


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            CONTENTS | {"train/cat/1.jpg": [5, 9]},
            "on other data .1 image of train/cat changed.: us",
        ),
        (
            CONTENTS | {"train/cat/3.jpg": [5, 9]},
            "1 image of train/cat added.*or put the data back",
        ),
    ],
)
def test_other_data_is_refused_with_what_has_changed(tmp_path, contents, message):
    start(tmp_path, FOLDER, contents=CONTENTS)
    with pytest.raises(UsageError, match=message) as caught:
        start(tmp_path, FOLDER, DATASET | {"num_train": 8}, contents=contents)
    assert "\n" not in str(caught.value)
    (tmp_path / "data.json").unlink()
    with pytest.raises(UsageError, match=r"what has changed is not known, for data.json is gone"):
        start(tmp_path, FOLDER, contents=contents)


def test_data_that_has_moved_is_the_same_and_is_found_there_from_then_on(tmp_path):
    start(tmp_path, FOLDER, contents=CONTENTS)
    moved = on_folder("/b")
    start(tmp_path, moved, contents=CONTENTS)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"]["dataset"] == moved["dataset"]
    with pytest.raises(UsageError, match=r"dataset.name='folder:/b', and this config has .*cifar"):
        start(tmp_path, RunConfig().to_dict())


def test_a_run_of_before_data_was_known_by_its_contents_goes_on_in_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start(tmp_path, on_folder("images", init_from="runs/a"))
    init_from = f"{tmp_path}/runs/a"
    start(tmp_path, on_folder(f"{tmp_path}/images", init_from=init_from), contents=CONTENTS)
    with pytest.raises(UsageError, match=r"dataset.name='folder:.*images', and this config has"):
        start(tmp_path, on_folder("/b", init_from=init_from), contents=CONTENTS)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below", "/proc/run"):
        with pytest.raises(UsageError, match=r"workdir .* cannot be written \(.+\): choose"):
            open_run_folder(workdir, CONFIG)


def test_a_path_that_tensorstore_would_change_is_refused_to_write_and_to_read(tmp_path):
    with pytest.raises(UsageError, match=r"logs: must be a path without a name that ends in gs:"):
        open_run_folder(tmp_path / "logs:", CONFIG)
    message = r"runs\\3 must be a path without backslashes, because of TensorStore: choose"
    with pytest.raises(UsageError, match=message):
        open_run_folder(tmp_path / "runs\\3", CONFIG)
    start(tmp_path / "runs", CONFIG)
    record_inputs(epath.Path(tmp_path / "runs"), Normalization(np.float32(0), np.float32(1)), 8)
    (tmp_path / "runs").rename(tmp_path / "runs\\3")
    with pytest.raises(UsageError, match=message):
        read_saved_run(tmp_path / "runs\\3")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a://b", "'a://b' begins like a URL, and 'a://' is no object store: choose a path"),
        ("/s3/runs", "'/s3/runs' is taken for s3://runs: choose a folder that does not begin"),
    ],
)
def test_a_path_that_epath_would_take_for_another_is_refused(place, message):
    with pytest.raises(UsageError, match=message):
        open_run_folder(place, CONFIG)


def test_record_that_is_none(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="not the record of a run"):
        open_run_folder(tmp_path, CONFIG)


def test_config_reads_back_as_it_was(tmp_path):
    start(tmp_path, CONFIG)
    config, dataset = read_run(epath.Path(tmp_path))
    assert (config.num_train_steps, config.model.name, config.model.widths) == (10, "a", (4, 8))
    assert config == RunConfig(num_train_steps=10, model=ModelConfig("a", widths=(4, 8)))
    assert dataset == DATASET


def test_inputs_are_kept_and_a_run_goes_on_with_them_once_it_has_a_checkpoint(tmp_path):
    kept = Normalization(np.ones((2, 2, 3), np.float32), np.float32(0.5))
    folder = epath.Path(tmp_path)
    record_inputs(folder, Normalization(np.float32(7), np.float32(8)), 64)
    record_inputs(folder, kept, 32)
    (mean, scale), size = read_inputs(folder)
    np.testing.assert_array_equal(mean, kept.mean)
    assert (scale, size) == (0.5, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["normalization.npz"]
    assert kept_normalization(folder) is None
    (folder / "checkpoints/3").mkdir(parents=True)
    np.testing.assert_array_equal(kept_normalization(folder).mean, kept.mean)
    (folder / "normalization.npz").unlink()
    assert kept_normalization(folder) is None, "as in a run of an older version"
