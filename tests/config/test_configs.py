import dataclasses
import importlib
import json
import pkgutil
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import configs
from rattn_jax.config.load import flatten, load_config, parse_config, read_config
from rattn_jax.config.schema import RunConfig
from rattn_jax.configs import default
from rattn_jax.data import dataset_spec, open_dataset
from rattn_jax.data.epochs import in_steps
from rattn_jax.data.open_loader import image_sizes
from rattn_jax.errors import UsageError
from rattn_jax.models import create_model
from rattn_jax.runs.identity import check_same_config
from rattn_jax.training.init_from import like_source
from rattn_jax.training.step_functions import build_model, build_optimizer
from tests.networks import CIFAR_PARAMETERS, SIZES

# Networks, and the size of the images on which the paper tests them.
TABLE_7 = {
    "attention56": 224,
    "attention92": 320,
    "attentionnext56": 224,
    "attentioninception56": 299,
    "inception_resnet_v1": 299,
    "inception_resnet_v2": 299,
    "resnet152": 224,
    "resnet200": 320,
    "resnext101": 224,
}
NAMES = [module.name for module in pkgutil.iter_modules(configs.__path__)]


def keys(config, prefix=""):
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_every_paper_network_has_a_config():
    attention = [f"attention{depth}" for depth in (56, 92, 128, 164, 236, 452)]
    networks = [*attention, "resnet164", "resnet1001", "wrn16_8", "wrn28_10"]
    expected = {f"cifar{classes}_{network}" for classes in (10, 100) for network in networks}
    expected |= {f"imagenet_{network}" for network in TABLE_7}
    expected |= {
        f"cifar10_noise{noise}_{network}"
        for noise in (10, 30, 50, 70)
        for network in ("attention92", "resnet164")
    }
    assert expected | {"default", "digits", "imagenet"} <= set(NAMES)


def test_configs_need_no_checkout():
    (folder,) = configs.__path__
    text = "".join(file.read_text() for file in Path(folder).glob("*.py"))
    imported = re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)
    assert {*imported} == {"ml_collections", "rattn_jax"}


@pytest.mark.parametrize("name", NAMES)
def test_config(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert set(keys(config)) == set(keys(default.get_config()))
    config.dataset.name = config.dataset.name or "digits"  # which --data gives
    if not config.model.name:
        config.init_from = "attention56_digits"  # which the user gives
    config = like_source(parse_config(config))
    build_optimizer(config)
    spec = dataset_spec(config.dataset.name)
    model = build_model(config, spec.num_classes)
    sizes = set(image_sizes(config.dataset, spec))
    plain = create_model(config.model.name, spec.num_classes)
    loops = {key: False for key in ("scan_modules", "remat") if hasattr(model, key)}
    if sizes <= SIZES[config.model.name] and model.clone(**loops) == plain:
        return  # test_networks.py traces it
    for size in sizes:
        images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        logits = jax.eval_shape(
            lambda rng, x: model.init_with_output(rng, x, train=False)[0], jax.random.key(0), images
        )
        assert logits.shape == (2, spec.num_classes)


def test_typed_config_has_the_keys_and_values_of_default():
    config = default.get_config()
    assert RunConfig() == parse_config(config)
    found = config.to_dict()
    assert RunConfig().to_dict() == found
    assert list(RunConfig().to_dict()) == list(found), "the order in config.json"


OLD_NAMES = {
    "augmentation.scale_crop": ("augmentation.resized_crop_area", (0.5, 1.0)),
    "dataset.validation_blacklist": ("dataset.test_exclude_file", "list.txt"),
    "freeze_statistics": ("freeze_batch_norm", True),
    "optimizer.decay": ("optimizer.step_decay", 0.5),
}


def old_record():
    """A config.json of before keys were renamed."""
    config = RunConfig().to_dict()
    for old, (new, value) in OLD_NAMES.items():
        *sections, name = new.split(".")
        section = config[sections[0]] if sections else config
        del section[name]
        section[old.rpartition(".")[2]] = value
    config["normalization"] = "unit"
    return json.loads(json.dumps(config))


def test_config_of_an_earlier_version_is_read(tmp_path):
    config = read_config(old_record())
    assert config.normalization == "zero_one"
    found = flatten(config.to_dict())
    assert {new: found[new] for new, _ in OLD_NAMES.values()} == dict(OLD_NAMES.values())
    check_same_config(tmp_path, old_record(), config.to_dict(), {})
    other = dataclasses.replace(config, freeze_batch_norm=False)
    with pytest.raises(UsageError, match="freeze_batch_norm=True, and this config has freeze_batc"):
        check_same_config(tmp_path, old_record(), other.to_dict(), {})


@pytest.mark.parametrize("old", OLD_NAMES)
def test_renamed_key_is_refused_with_its_new_name(old):
    new, value = OLD_NAMES[old]
    message = f"the key '{old}' of the config is now called '{new}'"
    with pytest.raises(UsageError, match=message):
        load_config("default", [f"--config.{old}={value}"])
    config = default.get_config()
    section = config[old.split(".")[0]] if "." in old else config
    section[old.rpartition(".")[2]] = value
    with pytest.raises(UsageError, match=message):
        parse_config(config)


def test_the_key_for_what_is_held_out_is_refused_with_its_new_name():
    message = "the key 'dataset.hold_out_by_name' of the config is now called 'dataset.hold_out_by'"
    with pytest.raises(UsageError, match=message):
        load_config("default", ["--config.dataset.hold_out_by_name=False"])
    config = load_config("default", ["--config.dataset.hold_out_by=names"])
    with pytest.raises(UsageError, match="hold_out_by='names' is out of range: it must be 'path'"):
        parse_config(config)


def test_renamed_value_is_refused_with_its_new_name():
    config = load_config("default", ["--config.normalization=unit"])
    with pytest.raises(UsageError, match="normalization='unit' is now called 'zero_one'"):
        parse_config(config)


def test_a_key_that_is_set_twice_has_its_last_value():
    flags = ["--config.optimizer.boundaries=(1,2)", "--config.seed=1", "--config.seed=2"]
    config = load_config("digits", [*flags, "--config.optimizer.boundaries=(3,)"])
    assert (config.optimizer.boundaries, config.seed) == ((3,), 2)


def test_unknown_key():
    config = default.get_config()
    config.optimizer.learningrate = 0.1
    with pytest.raises(UsageError, match=r"has no key 'optimizer\.learningrate'"):
        parse_config(config)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("cifar")])
def test_config_is_what_its_name_says(name):
    dataset, *kind, network = re.sub("_(fast|gpu|modern|wide)$", "", name).split(
        "_", maxsplit=name.count("noise") + 1
    )
    config = importlib.import_module(f"configs.{name}").get_config()
    assert config.dataset.name == dataset
    assert config.model.name == f"{network}_cifar" or name.endswith("_wide")
    noise = float(kind[0].removeprefix("noise")) / 100 if kind else 0
    assert config.dataset.label_noise.clean_ratio == pytest.approx(1 - noise)


@pytest.mark.parametrize(("network", "size"), TABLE_7.items())
def test_imagenet_configs(network, size):
    config = importlib.import_module(f"configs.imagenet_{network}").get_config()
    assert (config.dataset.name, config.model.name) == ("imagenet2012", network)
    assert image_sizes(parse_config(config).dataset, dataset_spec("imagenet2012")).eval == size
    assert config.optimizer.boundaries == (200_000, 400_000, 500_000)
    assert config.num_train_steps == 530_000
    assert (config.optimizer.momentum, config.optimizer.nesterov) == (0.9, False)


def test_config_without_a_dataset_asks_for_one():
    with pytest.raises(UsageError, match=r"dataset.name is not set: name a folder of images with"):
        parse_config(load_config("folder"))


@pytest.mark.parametrize("kind", ["folder:", "table:", "shards:"])
def test_data_without_a_path_is_refused(kind):
    message = f"dataset.name='{kind}' has no path: must say where the data lies, as {kind}photos"
    with pytest.raises(UsageError, match=message):
        parse_config(load_config("folder", [f"--config.dataset.name={kind}"]))
    with pytest.raises(UsageError, match=message):
        open_dataset(kind)


def test_config_without_a_network_asks_for_one():
    with pytest.raises(UsageError, match=r"model.name is not set: name a network .* or one to sta"):
        parse_config(
            load_config("finetune", ["--config.dataset.name=digits", "--config.init_from="])
        )


def test_modern_recipe_is_that_of_its_source():
    for network in ("attention56_modern", "attention92_modern", "attention92_wide"):
        config = importlib.import_module(f"configs.cifar10_{network}").get_config()
        epoch = 50_000 // config.batch_size
        assert config.num_train_steps == 220 * epoch
        assert config.optimizer.learning_rate / config.batch_size == pytest.approx(0.1 / 64)
        assert (config.optimizer.schedule, config.optimizer.warmup_steps) == ("cosine", 5 * epoch)
        used = {key: value for key, value in config.regularization.items() if value}
        assert used == {"mixup": 1.0, "mixing_off_last_steps": 20 * epoch, "erasing": 0.5}
        optimizer = config.optimizer
        assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == ("sgd", 0.9, True)
        assert (optimizer.weight_decay, optimizer.decay_norm_and_bias) == (1e-4, False)
        assert (config.augmentation.crop_padding, config.augmentation.flip) == (4, True)


def test_wide_network_has_the_parameters_of_the_ports():
    config = parse_config(importlib.import_module("configs.cifar10_attention92_wide").get_config())
    model = build_model(config, 10)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters == CIFAR_PARAMETERS["attention92_port_cifar"][0] == 12_170_730


def test_recipe_of_the_paper():
    config = default.get_config()
    assert (config.batch_size, config.num_train_steps) == (64, 160_000)
    assert config.optimizer.to_dict() == {
        "name": "sgd",
        "schedule": "step",
        "warmup_steps": 0,
        "warmup_epochs": None,
        "learning_rate": 0.1,
        "boundaries": (64_000, 96_000),
        "step_decay": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "decay_norm_and_bias": True,
        "clip_norm": 0.0,
    }
    used = {key: value for key, value in config.augmentation.items() if value}
    assert used == {"crop_padding": 4, "flip": True}
    assert not any(config.regularization.values())
    assert not any((config.label_smoothing, config.ema_decay, config.validation_examples))
    assert config.accumulate_steps == 1


@pytest.mark.parametrize(
    "flag",
    [
        "optimizer.boundaries=(100,'x')",
        "augmentation.resized_crop_area=('a','b')",
        "profile_steps=('a','b')",
        "loggers=([1],)",
        "model.widths=(1,'a',3)",
        "model.modules_per_stage=('a',)",
        "model.mask_poolings=(None,)",
        "dataset.classes=(1,2)",
    ],
)
def test_tuples_of_something_else_are_refused(flag):
    with pytest.raises(UsageError, match=rf"^config\.{flag.partition('=')[0]}=.* it must be "):
        parse_config(load_config("digits", [f"--config.{flag}"]))


@pytest.mark.parametrize(
    ("off", "changes", "is_refused"),
    [
        (99, {}, False),
        (100, {}, True),
        (100, {"regularization.mixup": 0.0, "regularization.cutmix": 1.0}, True),
        (100, {"regularization.mixup": 0.0}, False),
        (100, {"num_train_steps": 0}, False),  # an evaluation
        (100, {"num_epochs": 1000.0}, False),  # which are more updates
    ],
)
def test_mixing_that_is_never_on_is_refused(off, changes, is_refused):
    config = load_config("digits", ["--config.num_train_steps=100"])
    config.update_from_flattened_dict(
        {"regularization.mixup": 0.2, "regularization.mixing_off_last_steps": off} | changes
    )
    if not is_refused:
        parse_config(config)
        return
    message = r"mixing_off_last_steps=100 of num_train_steps=100 leaves no update with mixup"
    with pytest.raises(UsageError, match=message):
        parse_config(config)


def test_mixing_that_is_never_on_is_refused_in_epochs():
    config = load_config("digits", ["--config.num_epochs=1"])
    config.regularization.update({"mixup": 0.2, "mixing_off_last_steps": 1000})
    with pytest.raises(UsageError, match=r"=1000 of num_epochs=1 \(\d+ updates\) leaves no update"):
        in_steps(parse_config(config))
