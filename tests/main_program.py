"""main.py as its users run it: a process of its own, and its exit status."""

import time

from tests.compare import read_rows
from tests.forks import start_python

TINY = "--config=tests/tiny.py"
BARE = "--config=tests/bare.py"  # where any network will do


def start(*arguments, **environment):
    return start_python("main.py", *arguments, **environment)


def run(*arguments, **environment):
    """Its exit status, and what it wrote to standard output and error."""
    process = start(*arguments, **environment)
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def wait_for_step(workdir, step):
    """Waits until the run has written a line of `step`."""
    end = time.monotonic() + 200
    while time.monotonic() < end:
        path = workdir / "metrics.jsonl"
        if path.exists() and any(row["step"] >= step for row in read_rows(workdir)):
            return
        time.sleep(0.01)
    raise TimeoutError(f"no line of step {step} in {workdir}")
