"""Trains and evaluates a network.

    python main.py --config=configs/cifar100_attention452.py --workdir=/ckpt

Run again with the same --workdir, it goes on where it was. Any key of the config can be set on
the command line: --config.batch_size=256. Exit status: 0 finished or nothing left to do, 1
failed, 2 bad usage or config, 75 stopped by a signal after saving (run again).
"""

import errno
import logging
import os
import re
import sys
import traceback
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file in configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SELFTEST = flags.DEFINE_bool(
    "selftest", False, "Try devices, data, memory, checkpoints and speed, and train nothing."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Join the other processes of the job: found by JAX on TPU pods, SLURM, Open MPI and GKE, or "
    "through the next three flags.",
)
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the job.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")

_FAILED, _BAD_USAGE, _STOPPED = 1, 2, 75  # 75 is EX_TEMPFAIL of sysexits.h
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _fail(message: object, status: int) -> NoReturn:
    print(f"main.py: {message}", file=sys.stderr, flush=True)
    sys.exit(status)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _fail(error, _BAD_USAGE)
    except (AttributeError, KeyError) as error:
        key = re.findall(r"\w+", str(error))[0]
        _fail(f"the config has no key {key!r}: configs/default.py lists all", _BAD_USAGE)
    for flag in (_CONFIG, _WORKDIR):
        if flag.value is None:
            _fail(f"--{flag.name} is missing: see main.py --help", _BAD_USAGE)
    try:
        _CONFIG.value.lock()
    except OSError as error:  # the flag holds an error, raised by its first use
        _fail(f"--config: {str(error).splitlines()[-1].strip()}", _BAD_USAGE)
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}: options start with --", _BAD_USAGE)
    return rest


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    if not _DISTRIBUTED.value:
        _train()
        return
    import jax

    timeout = _CONFIG.value.process_timeout_seconds
    try:
        jax.distributed.initialize(
            _COORDINATOR.value,
            _NUM_PROCESSES.value,
            _PROCESS_ID.value,
            heartbeat_timeout_seconds=timeout,
            shutdown_timeout_seconds=timeout,
        )
    except (RuntimeError, ValueError) as error:
        _fail(f"--distributed: {' '.join(str(error).split())}", _BAD_USAGE)
    try:
        _train()
    # Leaving in order would wait for the others, and they for this process: a failure ends it at
    # once, so that they notice.
    except SystemExit as error:
        _leave(error.code if isinstance(error.code, int) else _FAILED)
    except BaseException:
        traceback.print_exc()
        _leave(_FAILED)


def _leave(status: int) -> NoReturn:
    if status != _STOPPED:
        import jax

        print(f"main.py: process {jax.process_index()} ends the job", file=sys.stderr, flush=True)
        os._exit(status)
    sys.exit(status)


def _train() -> None:
    # JAX takes seconds to import; a wrong flag should not wait for it.
    import jax

    from rattn_jax.errors import DataError, NonfiniteError, Preempted, SaveError, UsageError
    from rattn_jax.train import train_and_evaluate
    from rattn_jax.training.selftest import selftest

    absl_logging.set_verbosity(absl_logging.WARNING)
    # Of a save that fails, Orbax leaves an error for each array; SaveError says it once.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    run = selftest if _SELFTEST.value else train_and_evaluate
    try:
        run(_CONFIG.value, _WORKDIR.value)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        place = error.filename or _WORKDIR.value
        _fail(f"{place}: {error.strerror}; free space or mend the folder, and run again", _FAILED)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _fail(
            f"out of memory ({' '.join(str(error).split())[:150]}): use a smaller batch_size, "
            "model.remat=True or a larger accumulate_steps",
            _FAILED,
        )
    except UsageError as error:
        _fail(error, _BAD_USAGE)
    except (DataError, NonfiniteError) as error:
        _fail(error, _FAILED)
    except SaveError as error:
        # Threads of the save, TensorStore's as well, still print their tracebacks: from here on
        # nowhere. One may be in the middle of a line.
        with os.fdopen(os.dup(2), "w") as stderr:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            print(f"\nmain.py: {error}", file=stderr)
        os._exit(_FAILED)  # what is left of the save would wait, or complain, while Python ends
    except Preempted as error:
        _fail(error, _STOPPED)


def _use_huge_pages() -> None:
    """Starts again with huge memory pages, for which glibc must be asked before a process begins.

    On CPU they make training 1.5 times as fast (`experiments/RESULTS.md`). GLIBC_TUNABLES in
    the environment, empty or not, is taken as it is.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, sys.orig_argv)


def _leave_out_triton() -> None:
    """Has XLA compute products of matrices on GPUs with cuBLAS alone.

    With the kernels that it writes itself, jaxlib 0.11.2 ends the process on an H100: a failed
    check of the compiler in float32, and an illegal instruction in bfloat16
    (`experiments/RESULTS.md`). An XLA_FLAGS that names the option is taken as it is.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_enable_triton_gemm" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_enable_triton_gemm=false".strip()


if __name__ == "__main__":
    _use_huge_pages()
    _leave_out_triton()
    app.run(main, flags_parser=_parse_flags)
