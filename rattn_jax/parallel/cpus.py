"""The CPUs that this process may use."""

import math
import os
import sys
from pathlib import Path

# Of a container: microseconds of computing in so many, "150000 100000", or "max" for no limit.
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def num_cpus() -> int:
    """How many they are: as the scheduler and a container allow, where that can be known."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    scheduled = len(os.sched_getaffinity(0))
    try:
        quota, period = map(int, _CPU_MAX.read_text().split())
    except (OSError, ValueError):  # no such file, or no limit
        return scheduled
    return min(max(math.ceil(quota / period), 1), scheduled)
