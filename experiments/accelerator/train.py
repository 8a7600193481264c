"""Trains a run that ends, with its learning rate at 0, within a time limit.

The speed is known only after some updates. A run that turns out to be too long starts again with as
many updates as fit, and compiles a second time.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.accelerator.record import Record
from experiments.run_length import with_length
from rattn_jax.config.load import EPOCHS, key_of, load_config, parse_config
from rattn_jax.data.epochs import in_steps

_CALL = 100  # updates; another number would be compiled again
_ROWS = 3  # of metrics, from which the speed is taken
_EVALUATION_SECONDS = 15
_EVALUATIONS = 5


class _Run:
    """A training process with its own folder.

    Args:
        folder: the run's folder.
        log: file for what it prints.
        arguments: of main.py.
        num_train_steps: number of updates, which the arguments say as well.
    """

    def __init__(self, folder: Path, log: Path, arguments: list[str], num_train_steps: int) -> None:
        self.folder, self.log = folder, log
        every = max(_CALL, num_train_steps // _EVALUATIONS // _CALL * _CALL)
        command = [sys.executable, "main.py", f"--workdir={folder}", *arguments]
        command += [
            f"--config.eval_every_steps={every}",
            f"--config.checkpoint_every_steps={every}",
            "--config.keep_checkpoints=1",
            "--config.report=False",
        ]
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def rows(self) -> list[dict[str, Any]]:
        """The lines of training metrics with a speed."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return [row for row in rows if row["split"] == "train" and row.get("images_per_second")]

    def newest_checkpoint(self) -> str | None:
        """Name of the newest whole checkpoint after the start."""
        done = [p.name for p in (self.folder / "checkpoints").glob("*") if p.name.isdigit()]
        return max(done, key=int) if done and max(done, key=int) != "0" else None


def train(
    record: Record,
    config_name: str,
    overrides: Sequence[str],
    num_train_steps: int | None = None,
    start: Path | None = None,
) -> bool:
    """Trains, and keeps the newest checkpoint as OUT/run.tar.gz; returns whether the run finished.

    Args:
        record: where results go; it has the time limit.
        config_name: config of the run.
        overrides: flags --config.KEY=VALUE.
        num_train_steps: first guess at the number of updates; None takes the config's.
        start: a run's folder to begin with.
    """
    config = in_steps(parse_config(load_config(config_name, overrides)))
    updates = num_train_steps or config.num_train_steps
    given = [flag for flag in overrides if key_of(flag) not in EPOCHS]

    def arguments(updates: int) -> list[str]:
        lengths = (f"--config.{key}={value}" for key, value in with_length(config, updates).items())
        return [f"--config={config_name}", *given, *lengths]

    run = _start(record, "run", arguments(updates), updates, start)
    is_measured, kept, seconds_at_start = False, None, record.seconds_left()
    while run.process.poll() is None:
        time.sleep(1)
        rows = run.rows()
        if not is_measured and len(rows) >= _ROWS:
            is_measured = True
            speed = statistics.median(row["images_per_second"] for row in rows)
            seconds = (updates - rows[-1]["step"]) * config.batch_size / speed
            record.add(images_per_second=speed, seconds_needed=round(seconds))
            if seconds + _EVALUATION_SECONDS > record.seconds_left():
                again = seconds_at_start - record.seconds_left()  # to reach this point again
                usable = record.seconds_left() - again - _EVALUATION_SECONDS
                fitting = int(usable * speed / config.batch_size) // _CALL * _CALL
                record.add(updates_that_fit=max(fitting, 0))
                if fitting > 0:  # otherwise this run goes on until it is cut off
                    run.process.kill()
                    run.process.wait()
                    updates = fitting
                    run = _start(record, "shorter_run", arguments(updates), updates, start)
        newest = run.newest_checkpoint()
        if newest and newest != kept and _keep(record, run, newest):
            kept = newest
    record.add(status=run.process.returncode, updates=updates)
    if (newest := run.newest_checkpoint()) or kept is None:
        _keep(record, run, newest)
    print(run.log.read_text()[-2000:])
    return run.process.returncode == 0


def _start(
    record: Record, name: str, arguments: list[str], updates: int, start: Path | None
) -> _Run:
    folder = record.folder / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    if start is not None:
        shutil.copytree(start, folder)
    record.add(run=name, updates=updates)
    return _Run(folder, record.folder / f"{name}.log", arguments, updates)


def _keep(record: Record, run: _Run, checkpoint: str | None) -> bool:
    """Replaces OUT/run.tar.gz by the run's folder, with one checkpoint and without the cache.

    Returns whether it did: the run goes on, and may remove what is being read.
    """

    def chosen(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
        _, folder, name, *_ = (*Path(item.name).parts, "", "")
        is_other = folder == "checkpoints" and name not in ("", checkpoint)
        return None if is_other or folder == "compilation_cache" else item

    packed = record.folder / "run.tar.gz.tmp"
    try:
        with tarfile.open(packed, "w:gz") as archive:
            archive.add(run.folder, arcname="run", filter=chosen)
    except FileNotFoundError:
        return False
    packed.replace(record.folder / "run.tar.gz")
    record.add(kept_checkpoint=checkpoint)
    return True
