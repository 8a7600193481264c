import importlib
import pkgutil

import jax
import jax.numpy as jnp
import pytest

import configs
from configs import default
from rattn_jax.config_rules import check_config
from rattn_jax.data import dataset_spec
from rattn_jax.models import create_model

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
    assert expected | {"default", "digits"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_config(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    check_config(config)
    assert set(keys(config)) == set(keys(default.get_config()))
    spec = dataset_spec(config.dataset.name)
    keywords = {key: value for key, value in config.model.items() if value is not None}
    model = create_model(num_classes=spec.num_classes, **keywords)
    images = jax.ShapeDtypeStruct((2, *spec.image_shape), jnp.float32)
    logits = jax.eval_shape(
        lambda rng, x: model.init_with_output(rng, x, train=False)[0], jax.random.key(0), images
    )
    assert logits.shape == (2, spec.num_classes)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("cifar")])
def test_config_is_what_its_name_says(name):
    dataset, network = name.split("_", maxsplit=1)
    config = importlib.import_module(f"configs.{name}").get_config()
    assert config.dataset.name == dataset
    assert config.model.name == f"{network}_cifar"


def test_recipe_of_the_paper():
    config = default.get_config()
    assert (config.batch_size, config.num_train_steps) == (64, 160_000)
    assert config.optimizer.to_dict() == {
        "learning_rate": 0.1,
        "boundaries": (64_000, 96_000),
        "decay": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
    }
    assert config.augmentation.to_dict() == {"crop_padding": 4, "flip": True}
