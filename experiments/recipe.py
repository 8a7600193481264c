"""Compares training recipes on held-out training examples, in short runs.

    python -m experiments.recipe --workdir=runs/recipes --epochs=8 --seeds=3 \
        cifar10_attention56_fast 'cifar10_attention56_fast optimizer.learning_rate=0.4'

A recipe is the name of a config, followed in the same argument by the keys in which it differs.
Each is trained for the given epochs; warm-up, boundaries and the updates without mixing are
shortened with the run. Recipes are ranked by their error on held-out examples of the training
split; that of the test split is not shown. Started again, it resumes. Writes `recipes.md` and
`recipes.json` into the folder. Exit status: 0 all runs have ended, 1 some failed, 2 bad usage, 75
stopped by a signal after saving (run again).
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.reproduce.results import deviation, mean
from experiments.reproduce.runs import PlannedRun, make_folder, plan_runs, train
from experiments.reproduce.scales import Scale
from experiments.reproduce.step_time import StepTimes, seconds_left
from experiments.reproduce.tables import Variant
from experiments.run_length import with_length
from rattn_jax.cli import FAILED, Parser, align, errors_on_one_line, positive
from rattn_jax.config.load import key_of
from rattn_jax.data import dataset_spec
from rattn_jax.errors import STOPPED, UsageError
from rattn_jax.runs.files import absolute, replace_text

# Keys that `shorten` sets, whatever a recipe says.
_PLANNED = (
    *("num_train_steps", "validation_examples", "eval_every_steps", "checkpoint_every_steps"),
    "report",
)


class Result(NamedTuple):
    """The result of a recipe.

    Attributes:
        recipe: the recipe.
        errors: error in % on the held-out examples, of each seed that has ended.
        updates: updates of a run.
    """

    recipe: str
    errors: list[float]
    updates: int


def main(arguments: list[str] | None = None) -> None:
    """Trains the recipes, and writes the table of their errors."""
    parser = Parser("experiments.recipe", __doc__)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help="'CONFIG KEY=VALUE ...'")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--epochs", type=positive, default=8, help="of each run (8)")
    parser.add_argument("--seeds", type=positive, default=2, help="runs of each recipe (2)")
    parser.add_argument("--held-out", type=positive, default=5_000, help="examples (5,000)")
    parser.add_argument("--dry-run", action="store_true", help="show the plan, estimate its time")
    options, overrides = parser.parse_with_overrides(arguments)
    with errors_on_one_line(parser.prog):
        sys.exit(compare_recipes(options, overrides))


def compare_recipes(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Runs what the options request; returns the exit status.

    Raises:
        UsageError: a bad recipe, bad overrides, or a folder that cannot be made.
    """
    folder = absolute(options.workdir)
    variants = {recipe: as_variant(recipe, overrides) for recipe in options.recipes}
    flags = partial(shorten, epochs=options.epochs, held_out=options.held_out)
    short = Scale(f"{options.epochs} epochs", flags, ranks=True)
    place = folder / f"{options.epochs}-epochs"
    runs = plan_runs([*variants.values()], short, place, options.seeds, ())
    if options.dry_run:
        _show_plan(runs)
        return 0
    make_folder(place)
    status = 0
    for number, run in enumerate(runs, start=1):
        print(f"\nrun {number} of {len(runs)}: {run.variant.name}, seed {run.seed}", flush=True)
        result = 0 if _error(run) is not None else train(run)
        if result == STOPPED:
            status = STOPPED
            break
        status = FAILED if result else status
    results = ranked(variants, runs)
    text = as_markdown(results, options, overrides)
    replace_text(place / "recipes.md", text)
    replace_text(place / "recipes.json", as_json(results, options, overrides))
    print(f"\n{text}\n{place}/recipes.md and .json", flush=True)
    return status


def as_variant(recipe: str, overrides: Sequence[str]) -> Variant:
    """The variant of a recipe, which is "CONFIG KEY=VALUE ...", with flags for all recipes.

    Raises:
        UsageError: a flag sets what the length of the runs decides.
    """
    config, *changes = recipe.split() or [""]
    flags = [*(f"--config.{change.removeprefix('--config.')}" for change in changes), *overrides]
    for key in map(key_of, flags):
        if key in _PLANNED:
            raise UsageError(f"{key} follows from --epochs and --held-out here: leave it out")
    return Variant(re.sub(r"[^\w.=+-]+", "_", recipe.strip()), config, tuple(flags))


def shorten(config: ConfigDict, *, epochs: int, held_out: int) -> tuple[str, ...]:
    """Flags that train a config for some epochs, with examples held out."""
    num_train = dataset_spec(config.dataset.name, config.data_dir).num_train - held_out
    if num_train < config.batch_size:
        raise UsageError(
            f"--held-out={held_out} leaves {num_train} examples of {config.dataset.name} for "
            f"batches of {config.batch_size}: hold out fewer"
        )
    an_epoch = num_train // config.batch_size
    steps = epochs * an_epoch
    values = {
        **with_length(config, steps),
        "validation_examples": held_out,
        "eval_every_steps": steps,
        "checkpoint_every_steps": an_epoch,
        "report": False,
    }
    return tuple(f"--config.{key}={value}" for key, value in values.items())


def ranked(variants: Mapping[str, Variant], runs: Sequence[PlannedRun]) -> list[Result]:
    """A result for each recipe, the lowest mean error first, those without one last."""
    found = []
    for recipe, variant in variants.items():
        own = [run for run in runs if run.variant == variant]
        errors = [error for run in own if (error := _error(run)) is not None]
        found.append(Result(recipe, errors, own[0].config.num_train_steps))
    return sorted(found, key=lambda result: (not result.errors, mean(result.errors)))


def as_markdown(
    results: Sequence[Result], options: argparse.Namespace, overrides: Sequence[str]
) -> str:
    """The table for people."""
    rows = [
        f"| `{r.recipe}` | {_text(mean(r.errors))} | {_text(deviation(r.errors))} | "
        f"{', '.join(map(_text, r.errors))} | {r.updates:,} |"
        for r in results
    ]
    flags = f" All with {' '.join(overrides)}." if overrides else ""
    return "\n".join(
        [
            f"Error in % on {options.held_out:,} held-out training examples after "
            f"{options.epochs} epochs.{flags}",
            "",
            "| recipe | mean | deviation | each seed | updates |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def as_json(
    results: Sequence[Result], options: argparse.Namespace, overrides: Sequence[str]
) -> str:
    """The table for programs."""
    rows = [
        r._asdict() | {"mean": mean(r.errors), "standard_deviation": deviation(r.errors)}
        for r in results
    ]
    content: dict[str, Any] = {
        "epochs": options.epochs,
        "held_out": options.held_out,
        "flags": list(overrides),
        "recipes": rows,
    }
    return json.dumps(content, indent=2) + "\n"


def _error(run: PlannedRun) -> float | None:
    """Error of a run that has ended on its held-out examples, in %."""
    if run.result() is None:
        return None
    errors = [row["error_top1"] for row in run.rows() if row["split"] == "validation"]
    return 100 * float(errors[-1])


def _show_plan(runs: Sequence[PlannedRun]) -> None:
    times = StepTimes(None)
    rows = [["run", "seed", "updates", "done", "minutes left"]]
    total = 0.0
    for run in runs:
        minutes = 0.0 if _error(run) is not None else seconds_left(run, times.seconds(run)) / 60
        total += minutes
        steps = f"{run.config.num_train_steps:,}"
        rows.append(
            [run.variant.name, str(run.seed), steps, f"{run.steps_done():,}", f"{minutes:.0f}"]
        )
    print(f"{align(rows)}\n\ntogether about {total / 60:.1f} hours, estimated from multiply-adds")


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
