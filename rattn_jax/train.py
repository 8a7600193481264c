"""Trains and evaluates a network.

    rattn train --config=cifar10_attention56 --workdir=runs/mine --config.batch_size=128

--config is the name of a config (see `rattn configs`) or the path of a file; any of its keys can be
set with --config.KEY=VALUE. --data=PATH trains on images of your own: a folder with a folder for
each class, a table of images and classes (CSV, JSON lines, parquet), or tar files of WebDataset.
Run again with the same --workdir, it resumes. Exit status: 0 finished or nothing left to do, 1
failed, 2 bad usage or config, 75 stopped by a signal (run again). From Python:

    from rattn_jax.train import train_and_evaluate
    state = train_and_evaluate(config, workdir)
"""

import argparse
import dataclasses
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from etils import epath
from ml_collections import ConfigDict

from rattn_jax.cli import FAILED, Parser, add_workdir, errors_on_one_line, say
from rattn_jax.config.load import (
    flatten,
    key_of,
    load_config,
    override,
    parse_config,
    to_config_dict,
)
from rattn_jax.config.schema import KeepBestConfig, RunConfig
from rattn_jax.errors import STOPPED, UsageError
from rattn_jax.runs.best import LAST

if TYPE_CHECKING:
    import jax

    from rattn_jax.training.state import TrainState

# JAX takes a second to import; a wrong flag should not wait for it.


def train_and_evaluate(
    config: ConfigDict, workdir: epath.PathLike, devices: "Sequence[jax.Device] | None" = None
) -> "TrainState":
    """See `rattn_jax.training.run.train_and_evaluate`."""
    _check_system()
    from rattn_jax.training import run

    return run.train_and_evaluate(config, workdir, devices)


def main(arguments: Sequence[str] | None = None, prog: str = "rattn train") -> None:
    """Trains what the command line names."""
    parser = _parser(prog, __doc__)
    if prog == "main.py":
        parser.add_argument("--selftest", action="store_true", help="the same as rattn selftest")
    options, overrides = _with_data(parser, arguments)
    with errors_on_one_line(prog):
        config = load_config(options.config, overrides)
    function = _selftest if vars(options).get("selftest") else train_and_evaluate
    _run(prog, function, config, options)


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Evaluates the latest checkpoint of a run, and adds the line to its metrics.

        rattn evaluate --workdir=runs/mine --config.data_dir=/data/tfds

    The config is the run's own. Keys that a run may change when it is resumed, such as data_dir,
    can be set with --config.KEY=VALUE. A checkpoint that has been evaluated is not evaluated again.
    With --step=best or a number, and for a pretrained network, only keys of the data can be set;
    the error is printed, and nothing is written.
    """
    parser = _parser("rattn evaluate", evaluate.__doc__, with_config=False)
    options, overrides = parser.parse_with_overrides(arguments)
    with errors_on_one_line(parser.prog):
        _check_job(options)
        from rattn_jax.runs.pretrained import find_folder
        from rattn_jax.runs.weights_folder import is_weights_folder
        from rattn_jax.runs.workdir import read_run

        folder = find_folder(options.workdir)
        if options.step != LAST or is_weights_folder(folder):
            if options.distributed:
                raise UsageError(
                    "--distributed evaluates the latest checkpoint of a run: leave out it or --step"
                )
            _print_error(options, overrides)
            return
        config = to_config_dict(read_run(folder)[0])
        config = override(config, [*overrides, "--config.num_train_steps=0"])
    _run(parser.prog, train_and_evaluate, config, options)


_OF_INPUT = ("dataset.image_size", "dataset.eval_image_size", "dataset.eval_crop_fraction")


def _print_error(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Evaluates a checkpoint that is not the newest of a run, or is of no run."""
    from rattn_jax.inference.examples import split_logits
    from rattn_jax.inference.network import load
    from rattn_jax.interop.card import compare, error_text

    known = flatten(RunConfig().to_dict())  # of other keys `override` tells
    for flag in overrides:
        key = key_of(flag)
        is_of_data = key.startswith("dataset.") and key not in _OF_INPUT
        if key in known and not is_of_data and key != "data_dir":
            raise UsageError(
                f"--config.{key} is part of the network or of how its images are read, or does "
                "nothing here: leave it out"
            )
    network = load(options.workdir, options.step)
    plain = dataclasses.replace(network.config, keep_best=KeepBestConfig())  # nothing is kept
    config = parse_config(override(to_config_dict(plain), overrides))
    logits, labels = split_logits(dataclasses.replace(network, config=config), "test")
    print(f"step {network.step}: {error_text(compare('test', labels, logits, logits))}")


def selftest(arguments: Sequence[str] | None = None) -> None:
    """Tests everything that a long run needs, and trains nothing.

        rattn selftest --config=imagenet_attention56 --workdir=runs/imagenet

    Devices, data, disk, memory, a checkpoint written and read back, equal numbers after resuming,
    speed, and the projected end. Nothing but the folder is left.
    """
    parser = _parser("rattn selftest", selftest.__doc__)
    options, overrides = _with_data(parser, arguments)
    with errors_on_one_line(parser.prog):
        config = load_config(options.config, overrides)
    _run(parser.prog, _selftest, config, options)


def _selftest(config: ConfigDict, workdir: str) -> None:
    _check_system()
    from rattn_jax.training.selftest import selftest

    selftest(config, workdir)


def _check_system() -> None:
    """Raises UsageError where training lacks what it takes from the system."""
    missing = [name for name in ("fcntl", "resource") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"training runs on Linux and macOS, and sys.platform={sys.platform!r} has no "
            f"{' and no '.join(missing)}: use one of them, WSL 2 or a container; predict, explain "
            "and export work here"
        )


def _parser(prog: str, doc: str | None, *, with_config: bool = True) -> Parser:
    parser = Parser(prog, doc)
    if with_config:
        parser.add_argument("--config", required=True, metavar="NAME", help="a config, or a file")
        parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run")
        parser.add_argument("--data", metavar="PATH", help="images to train on")
    else:
        add_workdir(parser)
    job = parser.add_argument_group("several processes")
    job.add_argument(
        "--distributed",
        action="store_true",
        help="join the other processes of the job: found by JAX on TPU pods, SLURM, Open MPI and "
        "GKE, or through the next three flags",
    )
    job.add_argument("--coordinator-address", metavar="HOST:PORT", help="of process 0")
    job.add_argument("--num-processes", type=int, metavar="N", help="processes of the job")
    job.add_argument("--process-id", type=int, metavar="I", help="number of this one, from 0")
    return parser


def _with_data(
    parser: Parser, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the config's flags, of which --data is one."""
    options, overrides = parser.parse_with_overrides(arguments)
    if options.data is None:
        return options, overrides
    if any(flag.startswith("--config.dataset.name=") for flag in overrides):
        parser.error("--data and --config.dataset.name say the same: give one of them")
    with errors_on_one_line(parser.prog):
        from rattn_jax.data.places import name_of

        return options, [*overrides, f"--config.dataset.name={name_of(options.data)}"]


def _run(
    prog: str,
    function: Callable[[ConfigDict, str], Any],
    config: ConfigDict,
    options: argparse.Namespace,
) -> None:
    """Runs a function, in a job of several processes if the options say so."""
    with errors_on_one_line(prog):
        if options.distributed:
            _join_job(config, options)
        _check_job(options)
    try:
        with errors_on_one_line(prog, options.workdir):
            function(config, options.workdir)
    # Leaving in order would wait for the others, and they for this process: a failure ends it at
    # once, so that they notice.
    except SystemExit as error:
        if not options.distributed or error.code == STOPPED:
            raise
        _leave(prog, error.code if isinstance(error.code, int) else FAILED)
    except BaseException:
        if not options.distributed:
            raise
        traceback.print_exc()
        _leave(prog, FAILED)


def _check_job(options: argparse.Namespace) -> None:
    """Refuses flags of a job of several processes without the one that joins it.

    Raises:
        UsageError: there is one.
    """
    for name in ("coordinator_address", "num_processes", "process_id"):
        if vars(options)[name] is not None and not options.distributed:
            raise UsageError(
                f"--{name.replace('_', '-')} is of a job of several processes: add "
                "--distributed, or leave it out"
            )


def _join_job(config: ConfigDict, options: argparse.Namespace) -> None:
    import jax

    timeout = config.process_timeout_seconds
    try:
        jax.distributed.initialize(
            options.coordinator_address,
            options.num_processes,
            options.process_id,
            heartbeat_timeout_seconds=timeout,
            shutdown_timeout_seconds=timeout,
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"--distributed: {' '.join(str(error).split())}") from error
    # Gloo prints a line for each connection: from here on standard output is Python's alone.
    if sys.stdout is not None:
        sys.stdout = os.fdopen(os.dup(1), "w")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _leave(prog: str, status: int) -> NoReturn:
    import jax

    say(prog, f"process {jax.process_index()} ends the job")
    os._exit(status)


def use_huge_pages() -> None:
    """Starts again with huge memory pages, for which glibc must be asked before a process begins.

    On CPU they make training 1.5 times as fast (`experiments/RESULTS.md`). GLIBC_TUNABLES in
    the environment, empty or not, is taken as it is.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, sys.orig_argv)
