"""The CPUs that this process may use."""

import os
import sys


def num_cpus() -> int:
    """How many they are: as the scheduler or a container allows, where that can be known."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
