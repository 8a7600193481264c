"""The paper's tables and figure 4, each as one command.

    python -m experiments.reproduce table3 --workdir=runs/paper --config.data_dir=/data/tfds

Trains what the tables compare, one run after the other, and writes `TABLE-SCALE.md` and `.json`
with the paper's numbers beside ours into the folder, and a drawing of figure 4. With several seeds,
the rows of a table are compared by a paired test. Started again it skips runs that have ended and
goes on with one that was interrupted. Tables share runs: Attention-56 is trained once. Flags
`--config.KEY=VALUE` are given to every run, and the table says so. To train on several machines at
once, give each other runs by `--only`, and all the same folder. Exit status: 0 all runs have ended,
1 some failed, 2 bad usage, 75 stopped by a signal after saving (run again).
"""

import argparse
import datetime
import itertools
import sys
from collections.abc import Sequence
from functools import partial

from experiments.reproduce.page import Page
from experiments.reproduce.runs import PlannedRun, call, make_folder, plan_runs, train
from experiments.reproduce.scales import SCALES
from experiments.reproduce.step_time import StepTimes, seconds_left
from experiments.reproduce.tables import TABLES
from rattn_jax.cli import FAILED, Parser, align, errors_on_one_line, positive, set_up_process
from rattn_jax.errors import STOPPED, UsageError
from rattn_jax.runs.files import absolute, replace_text


def main(arguments: list[str] | None = None) -> None:
    """Trains what tables compare, and fills them in."""
    set_up_process()
    parser = Parser("experiments.reproduce", __doc__)
    parser.add_argument(
        "tables", nargs="+", choices=TABLES, metavar="TABLE", help=", ".join(TABLES)
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of runs and tables")
    parser.add_argument("--scale", choices=SCALES, default="paper")
    parser.add_argument("--seeds", type=positive, default=1, help="runs of each variant")
    parser.add_argument(
        "--only", default="", metavar="NAME,...", help="runs to train; the plan has their names"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan, estimate its time")
    parser.add_argument(
        "--measure", action="store_true", help="compile and time each network for it: minutes"
    )
    options, overrides = parser.parse_with_overrides(arguments)
    if options.measure and not options.dry_run:
        parser.error("--measure is for --dry-run, whose times it measures")
    with errors_on_one_line(parser.prog):
        sys.exit(reproduce(options, overrides))


def reproduce(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Runs what the options request; returns the exit status.

    Raises:
        UsageError: bad overrides, an unknown run, a folder of another run, or one that cannot be
            made.
    """
    scale, folder = SCALES[options.scale], absolute(options.workdir)
    tables = {name: TABLES[name] for name in options.tables}
    variants = dict.fromkeys(itertools.chain(*(table.variants() for table in tables.values())))
    runs = plan_runs([*variants], scale, folder / options.scale, options.seeds, overrides)
    for name, table in tables.items():
        print(f"{name}: {table.title}")
    print(f"Schedule: {scale.text}.\n", flush=True)
    wanted = _chosen(runs, options.only)
    if options.dry_run:
        _show_plan(wanted, measure=options.measure)
        return 0
    make_folder(folder)
    print(align(_plan(wanted)), flush=True)
    pages = [_page(name, options, overrides, runs) for name in tables]
    status = _finish_all(wanted, pages)
    for page in pages:
        _write(page)
        place = f"{folder}/{page.name}-{page.scale_name}"
        print(f"\n{page.markdown()}\n{place}.md and .json", flush=True)
    return status


def _page(
    name: str, options: argparse.Namespace, overrides: Sequence[str], runs: Sequence[PlannedRun]
) -> Page:
    """The page of a table, with those of the runs that are its own."""
    table = TABLES[name]
    own = [run for run in runs if run.variant in table.variants()]
    return Page(name, table, options.scale, SCALES[options.scale], overrides, own)


def _finish_all(runs: Sequence[PlannedRun], pages: Sequence[Page]) -> int:
    """Trains the rest of each run, and updates the pages; returns the exit status."""
    status = 0
    for number, run in enumerate(runs, start=1):
        print(f"\nrun {number} of {len(runs)}: {run.variant.name}, seed {run.seed}", flush=True)
        own = [page for page in pages if run in page.runs]
        rows = [row for page in own for row in page.table.rows if row.variant == run.variant]
        result = _finish(run, with_responses=any("response" in row.measure for row in rows))
        if result == STOPPED:
            return STOPPED
        status = FAILED if result else status
        for page in own:
            _write(page)
    return status


def _chosen(runs: Sequence[PlannedRun], only: str) -> list[PlannedRun]:
    """The runs that --only names, or all of them."""
    known = list(dict.fromkeys(run.variant.name for run in runs))
    names = only.split(",") if only else known
    for name in names:
        if name not in known:
            raise UsageError(f"--only: no run is called {name!r}: choose one of {', '.join(known)}")
    return [run for run in runs if run.variant.name in names]


def _finish(run: PlannedRun, *, with_responses: bool) -> int:
    """Trains the rest of a run; returns its exit status."""
    if run.result() is not None:
        print("has ended before", flush=True)
    elif status := train(run):
        return status
    if with_responses:
        return call([sys.executable, "-m", "experiments.reproduce.responses", str(run.folder)])
    return 0


def _write(page: Page) -> None:
    folder = page.runs[0].folder.parents[2]
    replace_text(folder / f"{page.name}-{page.scale_name}.md", page.markdown())
    replace_text(folder / f"{page.name}-{page.scale_name}.json", page.json())
    if drawing := page.drawing():
        replace_text(folder / f"{page.name}-{page.scale_name}.html", drawing)


def _plan(runs: Sequence[PlannedRun]) -> list[list[str]]:
    rows = [["run", "seed", "updates", "done"]]
    for run in runs:
        steps = f"{run.config.num_train_steps:,}"
        rows.append([run.variant.name, str(run.seed), steps, f"{run.steps_done():,}"])
    return rows


def _show_plan(runs: Sequence[PlannedRun], *, measure: bool) -> None:
    """Prints the plan, with estimated times on this machine."""
    times = StepTimes(partial(print, file=sys.stderr, flush=True) if measure else None)
    rows = _plan(runs)
    rows[0] += ["ms a step", "time left"]
    total = 0.0
    for run, row in zip(runs, rows[1:], strict=True):
        if run.result() is not None:
            row += ["", "ended"]
            continue
        step = times.seconds(run)
        left = seconds_left(run, step)
        total += left
        row += [f"{1e3 * step:,.1f}", _duration(left)]
    print(align(rows))
    print(
        f"\ntogether {_duration(total)} on this machine, one run after the other; compiling apart"
    )
    if not measure:
        print(
            "estimated from multiply-adds and the speed of one residual unit, but for runs that "
            "have begun: half or double is possible; --measure times a step of each network"
        )


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


if __name__ == "__main__":
    main()
