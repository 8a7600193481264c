import pytest

from rattn_jax.config.load import load_config, parse_config
from rattn_jax.config.schema import DatasetConfig, OptimizerConfig, RunConfig
from rattn_jax.data.epochs import in_steps, named_as_given
from rattn_jax.errors import UsageError

DIGITS = DatasetConfig(name="digits")  # 1,437 training examples


def resolve(**keys):
    config = in_steps(RunConfig(dataset=DIGITS, **keys))
    left = (config.num_epochs, config.eval_every_epochs, config.optimizer.warmup_epochs)
    assert left == (None, None, None)
    return config.num_train_steps, config.eval_every_steps, config.optimizer.warmup_steps


def test_epochs_become_updates():
    warmup = OptimizerConfig(warmup_epochs=0.5)
    assert resolve(batch_size=100, num_epochs=3) == (3 * 14, 1_000, 0)
    assert resolve(batch_size=100, eval_every_epochs=0.5, optimizer=warmup) == (160_000, 7, 7)
    assert resolve(batch_size=100, num_epochs=3, validation_examples=38) == (3 * 13, 1_000, 0)
    assert resolve(batch_size=1_000, num_epochs=0.1, eval_every_epochs=2) == (1, 2, 0)
    assert in_steps(RunConfig()) == RunConfig()


@pytest.mark.parametrize(
    ("given", "text", "named"),
    [
        (
            {"num_epochs": 3, "optimizer": OptimizerConfig(warmup_epochs=3.5)},
            "optimizer.warmup_steps=49 must be below num_train_steps=42: shorten",
            "optimizer.warmup_epochs=3.5 (49 updates) must be below num_epochs=3 (42 updates): sh",
        ),
        (
            {"eval_every_epochs": 1},
            "a run with eval_every_steps=140, and config.eval_every_steps=14: use num_train_steps",
            "a run with eval_every_steps=140, and config.eval_every_epochs=1 (14 updates): use num",
        ),
    ],
)
def test_errors_name_the_key_that_was_given(given, text, named):
    config = RunConfig(dataset=DIGITS, batch_size=100, **given)
    with pytest.raises(UsageError) as caught, named_as_given(config, in_steps(config)):
        raise UsageError(text)
    assert str(caught.value).startswith(named)


def test_too_many_epochs(tmp_path):
    with pytest.raises(
        UsageError, match=r"config.num_epochs=1e\+08 \(1,400,000,000 updates\) is out"
    ):
        resolve(batch_size=100, num_epochs=1e8)


def test_updates_by_hand_take_the_place_of_epochs():
    def load(*flags):
        config = parse_config(load_config("folder", ["--config.dataset.name=digits", *flags]))
        return config.num_epochs, config.num_train_steps, config.optimizer.warmup_epochs

    assert load() == (60, 160_000, 1)
    assert load("--config.num_train_steps=0") == (None, 0, 1)
    assert load("--config.num_epochs=2", "--config.optimizer.warmup_steps=5") == (2, 160_000, None)
    with pytest.raises(UsageError, match=r"num_epochs and --config\.num_train_steps say the same"):
        load("--config.num_epochs=2", "--config.num_train_steps=10")
    with pytest.raises(UsageError, match=r"config.num_epochs=-1.0 is out of range"):
        load("--config.num_epochs=-1")
