import dataclasses
import json
import shutil
from functools import partial

import jax
import numpy as np
import optax
import pytest
from etils import epath

import rattn_jax
from rattn_jax.config.load import load_config, parse_config
from rattn_jax.config.schema import OptimizerConfig
from rattn_jax.data.loaders import ImageSizes
from rattn_jax.errors import UsageError
from rattn_jax.models import create_model
from rattn_jax.runs.identity import describe_run
from rattn_jax.runs.saved_run import read_saved_run
from rattn_jax.runs.workdir import check_run, claim_run_folder, open_run_folder, read_run
from rattn_jax.train import train_and_evaluate
from rattn_jax.training import init_from
from rattn_jax.training.init_from import describe_source, like_source, open_source, start_from
from rattn_jax.training.optimizer import make_optimizer
from rattn_jax.training.state import create_train_state
from rattn_jax.training.step_functions import build_model
from tests.compare import assert_equal
from tests.devices import ONE
from tests.tiny import KEYWORDS, make_config
from tests.variables import zeros

OWN_KEYS = [f"model.{key}" for key in KEYWORDS]
RATE = optax.constant_schedule(0.1)
DIGITS = tuple(str(digit) for digit in range(10))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of two modules, which keeps averages."""
    folder = tmp_path_factory.mktemp("source")
    train_and_evaluate(tune(num_train_steps=2, ema_decay=0.5, log_every_steps=2), folder, ONE)
    return folder


def tune(source=None, **changes):
    config = make_config(init_from=source and str(source), num_train_steps=2, eval_every_steps=6)
    config.model.modules_per_stage = (2,)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


def open_tuned(source, **changes):
    """What a run with these changes starts from."""
    config = parse_config(tune(source, **changes))
    return open_source(config, build_model(config, num_classes=3))


def new_state(num_classes=10, *, with_averages=False):
    model = create_model("attention56_cifar", num_classes, **KEYWORDS | {"modules_per_stage": (2,)})
    optimizer = make_optimizer(OptimizerConfig(), RATE)
    create = partial(create_train_state, with_averages=with_averages)
    return zeros(partial(create, jax.random.key(3), model, optimizer, (8, 8, 3)))


def without_classifier(params):
    return {name: value for name, value in params.items() if name != "classifier"}


def test_all_is_taken_where_the_classes_are_the_same(source):
    said = []
    state = start_from(new_state(with_averages=True), open_tuned(source), DIGITS, said.append)
    learned = rattn_jax.load(source).variables
    assert_equal({"params": state.params, "batch_stats": state.batch_stats}, learned)
    assert_equal(state.ema, learned)
    assert int(state.step) == 0
    assert said == [f"starting from {source}, step 2: classifier included"]


def test_a_config_without_a_network_takes_that_of_the_source(source, tmp_path):
    flags = [f"--config.init_from={source}", "--config.dataset.name=digits"]
    config = like_source(parse_config(load_config("finetune", flags)))
    assert config.model == parse_config(tune()).model
    assert (config.normalization, config.dataset.image_size) == ("mean_image", 8)
    assert open_source(config, build_model(config, num_classes=3)).step == 2
    gone = [f"--config.init_from={tmp_path}", *flags[1:]]
    assert like_source(parse_config(load_config("finetune", gone)), source).model == config.model
    other = like_source(parse_config(load_config("finetune", [*flags, "--config.model.r=2"])))
    with pytest.raises(UsageError, match=r"model.r=1, and this one has 2"):
        open_source(other, build_model(other, num_classes=3))


def test_the_normalization_is_that_of_the_source(source, tmp_path):
    theirs = rattn_jax.load(source).normalization
    train_and_evaluate(tune(source, **{"dataset.max_resident_bytes": 0}), tmp_path, ONE)
    found = rattn_jax.load(tmp_path).normalization
    np.testing.assert_array_equal(found.mean, theirs.mean)
    of_another_size = init_from.normalization_of(read_saved_run(source), ImageSizes(16, 16))
    np.testing.assert_allclose(of_another_size.mean, theirs.mean.mean(axis=(0, 1)), rtol=1e-6)


def test_the_image_size_is_that_of_training(source, monkeypatch):
    """A run on ImageNet may be evaluated on larger images, and these it has kept."""
    other, about = read_run(source)
    dataset = dataclasses.replace(other.dataset, name="imagenet2012", image_size=None)
    other = dataclasses.replace(other, dataset=dataset)
    monkeypatch.setattr(init_from, "read_run", lambda folder: (other, about))
    monkeypatch.setattr(init_from, "read_inputs", lambda folder: (None, 320))
    flags = [f"--config.init_from={source}", "--config.dataset.name=folder:x"]
    assert like_source(parse_config(load_config("finetune", flags))).dataset.image_size == 224


@pytest.mark.parametrize("names", [("a", "b", "c"), DIGITS[::-1]])
def test_another_classifier_starts_anew(source, names):
    before, said = new_state(len(names)), []
    state = start_from(before, open_tuned(source), names, said.append)
    learned = rattn_jax.load(source).variables["params"]
    assert_equal(state.params["classifier"], before.params["classifier"])
    assert_equal(without_classifier(state.params), without_classifier(learned))
    assert said[0].endswith("all but the classifier")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.mask_activation": "channel"}, "mask_activation='mixed', and this one has 'chann"),
        (
            {"model.name": "resnet164_cifar", **dict.fromkeys(OWN_KEYS)},
            "model.name='attention56_cifar', and this one has 'resnet164_cifar'",
        ),
        ({"model.widths": (16,)}, r"set --config.model.widths=\(8,\)"),
        ({"normalization": "imagenet"}, "normalization='mean_image', and this one has 'imagenet'"),
    ],
)
def test_another_network_is_refused(source, changes, message):
    with pytest.raises(UsageError, match=message):
        open_tuned(source, **changes)


@pytest.mark.parametrize("changes", [{"model.widths": (16,)}, {"freeze": ("stage2",)}])
def test_a_refused_run_leaves_its_folder_free(source, tmp_path, changes):
    with pytest.raises(UsageError):
        train_and_evaluate(tune(source, **changes), tmp_path, ONE)
    assert not (tmp_path / "config.json").exists()


def test_no_run_to_start_from(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        open_tuned(tmp_path)


@pytest.mark.parametrize("scan", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_frozen_stays(source, tmp_path, scan):
    kept = tmp_path / "source"
    shutil.copytree(source, kept)
    frozen = {"freeze": ("stage1",), "freeze_batch_norm": True, "model.scan_modules": scan}
    like_kept = {"model.name": "", "normalization": ""}
    config = tune(kept, checkpoint_every_steps=1, **frozen, **like_kept)
    train_and_evaluate(config, tmp_path / "run", ONE)
    learned, found = rattn_jax.load(kept).variables, rattn_jax.load(tmp_path / "run").variables
    assert_equal(found["params"]["stage1"], learned["params"]["stage1"])
    assert_equal(found["batch_stats"], learned["batch_stats"])
    for name in ("stem", "norm", "classifier"):
        moved = jax.tree.map(np.array_equal, found["params"][name], learned["params"][name])
        assert not any(jax.tree.leaves(moved)), name
    # From here on the run has checkpoints of its own.
    moved = kept.rename(tmp_path / "moved")
    config.init_from, config.num_train_steps = str(moved), 3
    assert int(train_and_evaluate(config, tmp_path / "run", ONE).step) == 3


def test_a_run_knows_what_it_began_from_by_its_weights(source, tmp_path):
    folder = epath.Path(tmp_path / "run")

    def go_on(place, found=None):
        config = parse_config(tune(place))
        open_run_folder(folder, config.to_dict())
        run = describe_run(config.to_dict(), describe_source(config, found, folder))
        check_run(folder, run, {})
        claim_run_folder(folder, run, {}, [], print)
        return read_run(folder)[0].init_from

    moved = shutil.copytree(source, tmp_path / "moved")
    go_on(moved, read_saved_run(moved))
    (folder / "checkpoints/1").mkdir(parents=True)
    assert go_on(source) == str(source)
    shutil.rmtree(moved)
    assert open_source(parse_config(tune(moved)), None, folder) is None, "goes on without it"
    message = rf"moved' cannot be compared .*no config.json.*: give '{source}', which need not be"
    with pytest.raises(UsageError, match=message):
        go_on(moved)
    with pytest.raises(UsageError, match="that began from other weights than those of init_from"):
        go_on("attention56_digits")
    with pytest.raises(UsageError, match=f"with init_from='{source}', and this config has.*=None"):
        go_on(None)
    record = json.loads((folder / "config.json").read_text())
    del record["dataset"]["init_from"]  # as of a run of before
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=f"with init_from='{source}', and this config has"):
        go_on(moved)
    assert go_on(source) == str(source)


def test_statistics_move_unless_frozen(source, tmp_path):
    # What the source has compiled is read.
    train_and_evaluate(tune(source, ema_decay=0.5, log_every_steps=2), tmp_path, ONE)
    found, learned = rattn_jax.load(tmp_path).variables, rattn_jax.load(source).variables
    same = jax.tree.map(np.array_equal, found["batch_stats"], learned["batch_stats"])
    assert not any(jax.tree.leaves(same))


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (("stage2",), "'stage2' is no part of the network; its parts: .*stage1"),
        (("stem", "stage1", "norm", "classifier"), "nothing is left to train"),
    ],
)
def test_what_cannot_be_frozen(freeze, message):
    optimizer = make_optimizer(OptimizerConfig(), RATE, freeze=freeze)
    with pytest.raises(UsageError, match=message):
        optimizer.init(new_state().params)


def test_units_of_a_stage_are_frozen_together():
    params = {"stage1_unit1": np.ones(1), "stage1_unit2": np.ones(1), "stage10_unit1": np.ones(1)}
    optimizer = make_optimizer(OptimizerConfig(), RATE, freeze=("stage1",))
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    moved = [name for name, update in updates.items() if update]
    assert moved == ["stage10_unit1"]


@pytest.mark.parametrize("changes", [{"freeze": ("stem",)}, {"freeze_batch_norm": True}])
def test_nothing_is_frozen_without_a_run_to_start_from(changes):
    with pytest.raises(UsageError, match="name a run to start from"):
        parse_config(tune(**changes))
