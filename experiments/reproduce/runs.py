"""The runs of a table: their configs, their progress, and training them with main.py."""

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from experiments.reproduce.scales import Scale
from experiments.reproduce.tables import Variant
from rattn_jax.config.load import EPOCHS, as_before, flatten, key_of, load_config, parse_config
from rattn_jax.errors import STOPPED, UsageError
from rattn_jax.report.comparison import read_run
from rattn_jax.runs.checkpoint_files import all_steps
from rattn_jax.runs.identity import check_same_config
from rattn_jax.runs.workdir import RECORD

ROOT = Path(__file__).parents[2]


class PlannedRun(NamedTuple):
    """A variant with a seed.

    Attributes:
        variant: the variant.
        seed: the seed.
        folder: its workdir.
        flags: all flags of main.py except --workdir.
        config: the config that results from them.
    """

    variant: Variant
    seed: int
    folder: epath.Path
    flags: tuple[str, ...]
    config: ConfigDict

    def rows(self) -> list[dict[str, Any]]:
        """Its rows of metrics, oldest first.

        Raises:
            UsageError: the folder holds another run.
        """
        record = self.record()
        if record is None or not (self.folder / "metrics.jsonl").exists():
            return []
        config, _ = as_before(record["config"], parse_config(self.config))
        check_same_config(self.folder, record["config"], config.to_dict(), record["dataset"])
        return read_run(str(self.folder), self.variant.name).rows

    def record(self) -> dict[str, Any] | None:
        """Its config.json; None before the run has begun."""
        path = self.folder / RECORD
        return json.loads(path.read_text()) if path.exists() else None

    def result(self) -> dict[str, Any] | None:
        """The row of the test split after the last update; None before, and until that is saved."""
        return self.last_rows().get("test")

    def last_rows(self) -> dict[str, dict[str, Any]]:
        """The rows after the last update, by split; none before, and until that is saved."""
        total = self.config.num_train_steps
        steps = all_steps(self.folder / "checkpoints")
        if steps and steps[-1] < total:
            return {}
        return {row["split"]: row for row in self.rows() if row["step"] == total}

    def has_diverged(self) -> bool:
        """Whether it has stopped at NaN or infinity; one that skips such updates goes on."""
        stops = self.config.on_nonfinite == "stop"
        return stops and self.result() is None and (self.folder / "nonfinite").exists()

    def steps_done(self) -> int:
        """Number of updates according to its metrics."""
        return max((row["step"] for row in self.rows()), default=0)


def make_folder(folder: epath.Path) -> None:
    """Creates the folder of runs.

    Raises:
        UsageError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--workdir={folder} cannot be made ({error.strerror}): choose a folder that you may "
            "write to"
        ) from error


def plan_runs(
    variants: Sequence[Variant],
    scale: Scale,
    folder: epath.Path,
    num_seeds: int,
    overrides: Sequence[str],
) -> list[PlannedRun]:
    """Plans the runs: all variants with the first seed, then with the second, and so on.

    Args:
        variants: the variants to train.
        scale: the schedule.
        folder: the parent of the runs' folders.
        num_seeds: seeds 0 ... num_seeds - 1.
        overrides: flags that are applied last, but for the seed.

    Raises:
        UsageError: the flags do not make a valid config, or set the seed.
    """
    given = [*overrides, *itertools.chain(*(variant.flags for variant in variants))]
    if "seed" in map(key_of, given):
        raise UsageError("config.seed is that of each run, 0, 1, ...: give their number by --seeds")
    runs = []
    for seed in range(num_seeds):
        for variant in variants:
            changes = [*variant.flags, *scale.flags(_resolve(variant.config, variant.flags))]
            if scale.own_splits:
                changes.append(f"--config.validation_seed={seed}")
            # Seeds, and networks on several datasets, share compiled functions.
            changes += [f"--config.compilation_cache_dir={folder / 'compilation_cache'}"]
            changes += [*overrides, f"--config.seed={seed}"]
            # Once for each key: tuples that are given twice are appended.
            last = {flag.split("=")[0]: flag for flag in changes}
            config = _resolve(variant.config, [*last.values()])
            own = (f"--config=configs/{variant.config}.py", *last.values())
            workdir = folder / variant.name / f"seed{seed}"
            runs.append(PlannedRun(variant, seed, workdir, own, config))
    return runs


def _resolve(name: str, changes: Sequence[str]) -> ConfigDict:
    """The config that `rattn train` makes of a shipped config and these flags."""
    config = load_config(name, changes)
    given = flatten(parse_config(config).to_dict())
    for key, instead in EPOCHS.items():
        if given[key] is not None:
            raise UsageError(
                f"{key}={given[key]:g}: runs of a table count updates; give {instead} instead"
            )
    return config


def train(run: PlannedRun) -> int:
    """Trains or resumes a run; returns the exit status of main.py.

    Signals that would end this process are passed on, so that the run saves before it ends.
    """
    command = [sys.executable, "main.py", *run.flags, f"--workdir={run.folder}"]
    return call(command)


def call(command: Sequence[str]) -> int:
    """Runs a command in the repository's root, and passes signals on.

    Returns its exit status; STOPPED after a signal, whatever has become of the command.
    """
    process: subprocess.Popen[bytes] | None = None
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(signal.SIGTERM if number == signal.SIGHUP else number)
        if process is not None:
            process.send_signal(received[-1])

    with _signals_handled_by(forward):
        # A session of its own: Ctrl-C reaches it once, through this process.
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        for number in [*received]:  # that came before the process started
            process.send_signal(number)
        status = process.wait()
    return STOPPED if received else status


@contextmanager
def _signals_handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)
