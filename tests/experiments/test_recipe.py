"""experiments.recipe: what it trains, and what it makes of the results."""

import json

import pytest

from experiments import recipe as program
from experiments.reproduce.runs import PlannedRun
from rattn_jax.configs import cifar10_attention92_modern
from rattn_jax.errors import STOPPED

RECIPES = ("digits", "digits optimizer.learning_rate=0.4 optimizer.boundaries=(300,)")


@pytest.fixture
def trained(monkeypatch):
    """In place of training: the runs that were asked for; each writes the next of the errors."""
    seen, errors = [], []

    def train(run: PlannedRun):
        seen.append((run.variant.config, run.config.optimizer.learning_rate, run.seed))
        error = errors.pop(0)
        if error == STOPPED:
            return STOPPED
        run.folder.mkdir(parents=True)
        record = {"config": json.loads(json.dumps(run.config.to_dict())), "dataset": {}}
        (run.folder / "config.json").write_text(json.dumps(record))
        rows = [
            {"step": run.config.num_train_steps, "split": split, "error_top1": value}
            for split, value in (("validation", error), ("test", 0.99))
        ]
        (run.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return 0

    monkeypatch.setattr(program, "train", train)
    return seen, errors


def compare(folder, *arguments):
    with pytest.raises(SystemExit) as leaving:
        program.main([f"--workdir={folder}", "--held-out=157", "--epochs=4", *arguments, *RECIPES])
    return leaving.value.code


def test_recipes_are_ranked_by_held_out_examples(trained, tmp_path, capsys):
    seen, errors = trained
    errors += [0.05, 0.04, 0.07, STOPPED]
    assert compare(tmp_path) == STOPPED
    assert seen == [("digits", 0.1, 0), ("digits", 0.4, 0), ("digits", 0.1, 1), ("digits", 0.4, 1)]
    del seen[:]
    errors.append(0.02)
    assert compare(tmp_path) == 0
    assert seen == [("digits", 0.4, 1)], "what has ended is not trained again"
    content = json.loads((tmp_path / "4-epochs/recipes.json").read_text())
    assert [row["recipe"] for row in content["recipes"]] == [*reversed(RECIPES)]
    assert [row["mean"] for row in content["recipes"]] == pytest.approx([3, 6])
    assert content["recipes"][1]["standard_deviation"] == pytest.approx(2**0.5)
    page = (tmp_path / "4-epochs/recipes.md").read_text()
    assert "Error in % on 157 held-out training examples after 4 epochs." in page
    assert "| `digits` | 6.00 | 1.41 | 5.00, 7.00 | 80 |" in page
    assert "99" not in page, "the test split does not show"
    assert page in capsys.readouterr().out


def test_everything_is_shortened_with_the_run():
    config = cifar10_attention92_modern.get_config()
    flags = dict(f.split("=") for f in program.shorten(config, epochs=11, held_out=5_000))
    assert flags["--config.num_train_steps"] == str(11 * 175)
    assert flags["--config.optimizer.warmup_steps"] == str(round(11 * 175 / 220 * 5))
    assert flags["--config.regularization.mixing_off_last_steps"] == str(11 * 175 // 11)
    assert flags["--config.validation_examples"] == "5000"


def test_plan_and_bad_recipes(tmp_path, capsys):
    assert compare(tmp_path, "--dry-run", "--seeds=1", "--config.batch_size=32") == 0
    out = capsys.readouterr().out
    assert "160" in out, "updates of 4 epochs"
    assert "digits_optimizer.learning_rate=0.4_optimizer.boundaries=_300_" in out
    assert "together about 0.0 hours" in out
    for arguments, message in (
        (["--held-out=1400"], "leaves 37 examples of digits for batches of 64: hold out fewer"),
        (["digits optimizer.warmup_epochs=2"], "warmup_epochs=2: runs of a table count updates"),
        (["--config.eval_every_epochs=1"], "eval_every_epochs=1: runs of a table count updates"),
        (["digits optimizer.rate=1"], "the config has no key 'optimizer.rate'"),
        (["digits report=True"], "report follows from --epochs and --held-out here: leave it out"),
        (["--config.eval_every_steps=5"], "eval_every_steps follows from --epochs and"),
        (["digit"], "there is no such file and no config of this name: did you mean digits"),
    ):
        assert compare(tmp_path, *arguments) == 2
        assert message in capsys.readouterr().err
