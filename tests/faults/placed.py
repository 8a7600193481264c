"""main.py, with a fault at a place of its program.

python -m tests.faults.placed FAULT PLACE COUNT --config=... --workdir=...

FAULT: kill (SIGKILL), term (SIGTERM), raise (an exception) or hang.
PLACE: of the COUNT-th time that the program comes there, see PLACES.
"""

import os
import runpy
import signal
import sys
import time

from etils import epath

import rattn_jax.runs.checkpoint_files
import rattn_jax.runs.checkpointer
import rattn_jax.training.loop
import rattn_jax.training.step_functions

FAULTS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "int": lambda: os.kill(os.getpid(), signal.SIGINT),
}


class InjectedError(Exception):
    pass


def raise_error():
    raise InjectedError("on purpose")


def hang():
    print("hanging", flush=True)
    time.sleep(1000)


FAULTS |= {"raise": raise_error, "hang": hang}

# Where the fault comes before the function, or after it ("+").
PLACES = {
    "compiling": (rattn_jax.training.step_functions, "compile_for"),
    "stepping": (rattn_jax.training.step_functions.StepFunctions, "train"),
    "evaluating": (rattn_jax.training.loop, "evaluate"),
    "saving": (rattn_jax.runs.checkpointer.ocp.AsyncCheckpointer, "save+"),
    "renaming": (type(epath.Path("/")), "rename+"),
    "restoring": (rattn_jax.runs.checkpoint_files, "read_checkpoint"),
}


def place_fault(fault, place, count):
    owner, name = PLACES[place]
    after, name = name.endswith("+"), name.rstrip("+")
    function, calls = getattr(owner, name), 0

    def faulty(*args, **keywords):
        nonlocal calls
        calls += 1
        due = calls == count
        if due and not after:
            FAULTS[fault]()
        result = function(*args, **keywords)
        if due and after:
            FAULTS[fault]()
        return result

    setattr(owner, name, faulty)


if __name__ == "__main__":
    fault, place, count, *arguments = sys.argv[1:]
    place_fault(fault, place, int(count))
    os.environ.setdefault("GLIBC_TUNABLES", "")  # or main.py would start again, without the fault
    sys.argv = ["main.py", *arguments]
    runpy.run_path("main.py", run_name="__main__")
