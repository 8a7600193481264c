"""What the commands share: flags, errors on one line, exit statuses, tables.

parser = Parser("rattn predict", __doc__)
add_workdir(parser)
with errors_on_one_line("rattn predict"):
    ...
"""

import argparse
import errno
import gc
import inspect
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import NoReturn

from absl import logging as absl_logging

from rattn_jax.config.load import did_you_mean, flatten
from rattn_jax.config.schema import RunConfig
from rattn_jax.errors import (
    STOPPED,
    DataError,
    NonfiniteError,
    Preempted,
    SaveError,
    UsageError,
)
from rattn_jax.runs.best import BEST, LAST
from rattn_jax.runs.console import Console

FAILED, BAD_USAGE = 1, 2

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line, and suggests similar flags.

    Args:
        prog: the command, such as "rattn predict".
        doc: text of --help, with an example: the docstring of the module.
    """

    def __init__(self, prog: str, doc: str | None) -> None:
        super().__init__(
            prog=prog,
            description=inspect.cleandoc(doc or ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._takes_overrides = False

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Returns the options; ends the process if an argument is unknown."""
        options, rest = self._parse(arguments)
        if rest:
            self._refuse(rest[0])
        self._check_required(options)
        return options

    def parse_with_overrides(
        self, arguments: Sequence[str] | None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Returns the options, and the flags `--config.KEY=VALUE`."""
        self._takes_overrides = True
        options, rest = self._parse(arguments)
        for argument in rest:
            if not argument.startswith("--config."):
                self._refuse(argument)
            if "=" not in argument:
                self.error(f"{argument} has no value: must be {argument}=VALUE")
        self._check_required(options)
        return options, rest

    def error(self, message: str) -> NoReturn:
        """Ends the process with one line."""
        say(self.prog, f"{' '.join(message.split())} (see {self.prog} --help)")
        sys.exit(BAD_USAGE)

    def _parse(self, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
        given = sys.argv[1:] if arguments is None else [*arguments]
        num_flags = given.index("--") if "--" in given else len(given)
        # Underscores in flags mean dashes.
        dashed = [
            re.sub(r"^--\w+", lambda m: m[0].replace("_", "-"), text) if i < num_flags else text
            for i, text in enumerate(given)
        ]
        # Report a misspelt flag rather than that the right one is missing.
        required = [] if {"-h", "--help"} & {*dashed} else self._required()
        for action in required:
            action.required = False
        parsed = self.parse_known_args(dashed)
        for action in required:
            action.required = True
        return parsed

    def _required(self) -> list[argparse.Action]:
        return [action for action in self._actions if action.required and action.option_strings]

    def _check_required(self, options: argparse.Namespace) -> None:
        flags = {action.dest: action.option_strings[0] for action in self._required()}
        missing = [flag for name, flag in flags.items() if getattr(options, name) is None]
        if missing:
            self.error(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")

    def _refuse(self, argument: str) -> NoReturn:
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        name = argument.partition("=")[0]
        if not argument.startswith("-"):
            meant = f"did you mean --config={argument}?" if "--config" in flags else ""
            self.error(f"unexpected argument {argument!r}: {meant or 'flags start with --'}")
        hint = did_you_mean(name, flags)
        if not hint and self._takes_overrides:
            keys = [f"--config.{key}" for key in flatten(RunConfig().to_dict())]
            hint = did_you_mean(name.removeprefix("--").replace("-", "_"), keys)
            hint = hint or "keys of the config are set with --config.KEY=VALUE"
        self.error(f"unknown flag {name}{': ' * bool(hint)}{hint.strip()}")


@contextmanager
def errors_on_one_line(program: str, workdir: str = "the disk") -> Iterator[None]:
    """Turns errors that a user can correct into one line and an exit status.

    Args:
        program: beginning of the line, such as "rattn predict".
        workdir: folder to report if a disk is full and the error names none.
    """
    _set_up_output()
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()  # raises if the pipe is closed
    except UsageError as error:
        _end(program, error, BAD_USAGE)
    except (DataError, NonfiniteError) as error:
        _end(program, error, FAILED)
    except SaveError as error:
        _end_at_once(program, error)
    except Preempted as error:
        _end(program, error, STOPPED)
    except BrokenPipeError:  # as in `rattn predict ... | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python reports it again at exit
        sys.exit(FAILED)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        place = error.filename or workdir
        remedy = "free space or repair the folder, and run again"
        _end(program, f"{place}: {error.strerror}; {remedy}", FAILED)
    except KeyError as error:  # raised by epath for an unknown URL scheme
        if not str(error.args[0]).endswith("://"):
            raise
        kind = f"{error.args[0]}..."
        remedy = "download it, or give a path, or a URL such as gs://bucket/run"
        _end(program, f"{kind} cannot be read or written: {remedy}", BAD_USAGE)
    except ImportError as error:  # raised by fsspec, without a name, for a library of a URL's store
        if error.name is not None:
            raise
        _end(program, f"{' '.join(str(error).split())}, or give a path on this machine", BAD_USAGE)
    except RuntimeError as error:  # JaxRuntimeError, without importing JAX
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:150]
        remedy = "use a smaller batch_size, model.remat=True or a larger accumulate_steps"
        _end(program, f"out of memory ({reason}): {remedy}", FAILED)


@contextmanager
def working(phase: str) -> Iterator[Console]:
    """Prints the phase on stderr if the block takes long."""
    with closing(Console(stream=sys.stderr)) as console:
        console.enter(phase)
        yield console


def say(program: str, message: object) -> None:
    """Prints a line on stderr; if nobody can read it, as when a terminal was closed, in vain."""
    with suppress(OSError):
        print(f"{program}: {message}", file=sys.stderr, flush=True)


def _end(program: str, message: object, status: int) -> NoReturn:
    say(program, message)
    sys.exit(status)


def _end_at_once(program: str, error: SaveError) -> NoReturn:
    """Ends the process without waiting for a save that has failed.

    The threads of the save still print tracebacks, which are discarded from here on; one may be in
    the middle of a line. A normal exit of Python would wait for them.
    """
    with os.fdopen(os.dup(2), "w") as stderr:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        print(f"\n{program}: {error}", file=stderr)
    os._exit(FAILED)


def _set_up_output() -> None:
    """Makes file names that are not UTF-8 printable, and prints only the text of log records."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if it was closed when Python started
            stream.reconfigure(errors="backslashreplace")
    # Of Pillow, about files that `data/decoding.py` then refuses.
    warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")
    logging.basicConfig(format="%(message)s")
    absl_logging.set_verbosity(absl_logging.WARNING)
    # A failed save leaves an error for each array; SaveError reports it once.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def positive(text: str) -> int:
    """Type of a flag with a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return int(text)


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that name a trained network and its checkpoint: `workdir` and `step`."""
    parser.add_argument(
        "--workdir",
        "--pretrained",
        required=True,
        metavar="RUN",
        help="folder of a trained run, name of a pretrained network, or hf://OWNER/NAME",
    )
    parser.add_argument(
        "--step",
        type=_step,
        default=LAST,
        metavar=f"{BEST}|{LAST}|N",
        help=f"the checkpoint ({LAST}); {BEST}: the one that config.keep_best has kept",
    )


def _step(text: str) -> int | str:
    if text in (LAST, BEST):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: must be {BEST}, {LAST} or a number of updates")
    return int(text)


def align(rows: list[list[str]]) -> str:
    """Formats rows as a table, its first column left-aligned; the first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def set_up_process() -> None:
    """Sets what a program needs; must come before JAX is imported."""
    # Importing JAX and tracing a network create many objects, and nearly all of them stay. At
    # Python's own thresholds the garbage collector looks at them again and again: it takes 7 % of
    # the time in which `rattn predict` answers for one image.
    gc.set_threshold(50_000, 20, 50)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA logs errors only
    _leave_out_triton()


def _leave_out_triton() -> None:
    """Has XLA compute products of matrices on GPUs with cuBLAS alone.

    With the kernels that it writes itself, jaxlib 0.11.2 ends the process on an H100: a failed
    check of the compiler in float32, and an illegal instruction in bfloat16
    (`experiments/RESULTS.md`). An XLA_FLAGS that names the option is taken as it is.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_enable_triton_gemm" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_enable_triton_gemm=false".strip()
