"""Step times from costs and a chip's published figures; the largest batch from few compilations.

The assumptions, all of them:

- Products run at the chip's peak and traffic at its full bandwidth, and the slower of the two
  hides the other (roofline). No step can be faster than its products. The traffic is what XLA
  counts, operands and results of every operation, also of those arrays that it keeps on the chip:
  where it dominates, the time may be too long.
- Every chip sends 2 (n - 1) / n of each all-reduced byte (a ring's share, the least possible), on
  all of its links at full rate, and each all-reduce passes 2 (side - 1) chips along each axis,
  1 microsecond a hop ("How to Scale Your Model", jax-ml.github.io/scaling-book). Nothing is
  computed meanwhile.
- Input arrives in time; hosts and dispatch cost nothing.
"""

import dataclasses
import math
from collections.abc import Callable

from experiments.pod.chips import Chip
from experiments.pod.costs import Costs

HOP_SECONDS = 1e-6
CHIP_COUNTS = (4, 16, 64, 256)
MOST_COMPILATIONS = 8  # of a search; each takes minutes


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step, if all assumptions hold.

    Attributes:
        chips: number of chips.
        compute: at the peak rate.
        memory_traffic: at the full bandwidth.
        all_reduce: see the module.
        step: the larger of the first two, and the third.
    """

    chips: int
    compute: float
    memory_traffic: float
    all_reduce: float
    step: float


def step_time(costs: Costs, chip: Chip, num_chips: int) -> StepTime:
    """Time of a step with these costs a chip on so many chips, in a torus of equal sides."""
    side = num_chips ** (1 / chip.sides)
    hops = 2 * chip.sides * (side - 1)
    sent = 2 * (num_chips - 1) / num_chips * costs.all_reduce_bytes
    exchange = sent / chip.ici_bytes_per_second + costs.all_reduces * hops * HOP_SECONDS
    compute = costs.flops / chip.matmul_flops_per_second
    traffic = costs.bytes_accessed / chip.hbm_bytes_per_second
    return StepTime(num_chips, compute, traffic, exchange, max(compute, traffic) + exchange)


@dataclasses.dataclass(frozen=True)
class LargestBatch:
    """The largest batch a chip that was found to fit.

    Attributes:
        batch: images a chip; 0 if none was found.
        total_bytes: memory that it takes.
        refused: the smallest batch seen not to fit, or beyond what a config may have, or None.
        compilations: how many it took.
    """

    batch: int
    total_bytes: int
    refused: int | None
    compilations: int


def largest_batch(
    total_bytes: Callable[[int], int | None], batch: int, capacity: int, *, unit: int = 1
) -> LargestBatch:
    """The largest batch that fits, to 1/32 of it, with at most `MOST_COMPILATIONS`.

    A line through two batches says where the memory ends. Where the compiler refuses what the line
    promises, the geometric mean of what fits and what does not is next.

    Args:
        total_bytes: memory with a batch, or None if the compiler refuses it.
        batch: where to start.
        capacity: bytes of memory.
        unit: batches are multiples of it.
    """
    seen: dict[int, int | None] = {}

    def fits(candidate: int) -> bool:
        if candidate not in seen:
            seen[candidate] = total_bytes(candidate)
        size = seen[candidate]
        return size is not None and size <= capacity

    def rounded(candidate: float) -> int:
        return max(unit, int(candidate) // unit * unit)

    start = rounded(batch)
    while not fits(start) and start > unit:
        start = rounded(start / 2)
    fits(rounded(start / 2) if start > unit else 2 * unit)
    on_the_line = True
    while True:
        best = max((size for size in seen if fits(size)), default=0)
        refused = min((size for size in seen if not fits(size)), default=None)
        step = rounded(best / 32)
        close = refused is not None and refused - best <= step
        if not best or close or len(seen) >= MOST_COMPILATIONS:
            return LargestBatch(best, seen.get(best) or 0, refused, len(seen))
        known = {size: total for size, total in seen.items() if total is not None}
        candidate = max(rounded(_end_of_line(known, capacity)), best + step)
        if refused is not None and (candidate >= refused or not on_the_line):
            candidate = max(rounded(math.sqrt(best * refused)), best + step)
        on_the_line = fits(candidate) and on_the_line


def _end_of_line(known: dict[int, int], capacity: int) -> float:
    """Where the line through the two largest batches reaches the capacity; 0 if it never does."""
    (low, low_bytes), (high, high_bytes) = sorted(known.items())[-2:]
    slope = (high_bytes - low_bytes) / (high - low)
    return low + (capacity - low_bytes) / slope if slope > 0 else 0
