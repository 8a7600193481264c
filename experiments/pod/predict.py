"""Predicts step times from costs and a chip's figures, and finds the largest batch.

The assumptions:

- Roofline: matrix products run at the chip's peak rate and memory traffic at its full bandwidth,
  and the slower of the two determines the time. The traffic is XLA's count of operands and results
  of every operation, including arrays that stay on the chip, so a time that it determines may be
  too long.
- Every chip sends 2 (n - 1) / n of each all-reduced byte, as in a ring, which is the minimum, at
  the full rate of its links. Each all-reduce takes 2 (side - 1) hops of 1 microsecond along each
  axis ("How to Scale Your Model", jax-ml.github.io/scaling-book). Nothing else is computed
  meanwhile.
- Input arrives in time, and hosts and dispatch take no time.
"""

import dataclasses
import math
from collections.abc import Callable

from experiments.pod.chips import Chip
from experiments.pod.costs import Costs

HOP_SECONDS = 1e-6
CHIP_COUNTS = (4, 16, 64, 256)
MOST_COMPILATIONS = 8  # in a search; each takes minutes


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step, under the assumptions of this module.

    Attributes:
        chips: number of chips.
        compute: matrix products at the peak rate.
        memory_traffic: memory traffic at the full bandwidth.
        all_reduce: communication between chips.
        step: the larger of the first two, plus the third.
    """

    chips: int
    compute: float
    memory_traffic: float
    all_reduce: float
    step: float


def step_time(costs: Costs, chip: Chip, num_chips: int) -> StepTime:
    """Time of a step with these costs per chip on `num_chips` chips, in a torus of equal sides."""
    side = num_chips ** (1 / chip.sides)
    hops = 2 * chip.sides * (side - 1)
    sent = 2 * (num_chips - 1) / num_chips * costs.all_reduce_bytes
    exchange = sent / chip.ici_bytes_per_second + costs.all_reduces * hops * HOP_SECONDS
    compute = costs.flops / chip.matmul_flops_per_second
    traffic = costs.bytes_accessed / chip.hbm_bytes_per_second
    return StepTime(num_chips, compute, traffic, exchange, max(compute, traffic) + exchange)


@dataclasses.dataclass(frozen=True)
class LargestBatch:
    """The largest batch per chip that was found to fit.

    Attributes:
        batch: images per chip; 0 if no batch fits.
        total_bytes: memory that it needs.
        refused: the smallest batch that did not fit or was above the limit of a config; None if
            there was none.
        compilations: number of compilations.
    """

    batch: int
    total_bytes: int
    refused: int | None
    compilations: int


def largest_batch(
    total_bytes: Callable[[int], int | None], batch: int, capacity: int, *, unit: int = 1
) -> LargestBatch:
    """Finds the largest batch that fits, to within 1/32, in at most `MOST_COMPILATIONS`.

    A line through two batches extrapolates the memory. If the compiler refuses the batch that it
    suggests, the geometric mean of the largest that fits and the smallest that does not is next.

    Args:
        total_bytes: gives the memory of a batch, or None if the compiler refuses it.
        batch: the first batch to try.
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
    """The batch at which a line through the two largest reaches the capacity; 0 if none does."""
    (low, low_bytes), (high, high_bytes) = sorted(known.items())[-2:]
    slope = (high_bytes - low_bytes) / (high - low)
    return low + (capacity - low_bytes) / slope if slope > 0 else 0
