"""Peak memory of this process."""

import resource
import sys


def peak_bytes_of_process() -> int:
    """The largest resident memory that the process has had."""
    unit = 1 if sys.platform == "darwin" else 1024  # of the system's number
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
