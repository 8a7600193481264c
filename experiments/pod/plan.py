"""Compiles a run's train step for a topology: its memory, costs and estimated time."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import jax

from experiments.pod.chips import Chip
from experiments.pod.costs import Costs, Memory, costs, memory
from experiments.pod.predict import CHIP_COUNTS, LargestBatch, StepTime, largest_batch, step_time
from experiments.pod.step import PlannedStep
from rattn_jax.config.rules import check_config
from rattn_jax.config.schema import RunConfig
from rattn_jax.errors import UsageError
from rattn_jax.training.step_functions import build_model

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The result for a config and a topology; sizes and costs are those of one device.

    Attributes:
        model: name of the network.
        batch_size: global batch size.
        devices: number of devices.
        device_kind: their kind.
        resident: whether every device holds the data.
        fits: whether the memory suffices; None if the chip's memory is not known.
        refusal: the compiler's message, if it ran out of memory.
        memory: of the step; None if refused.
        evaluated_bytes: resident data of the evaluated splits, without padding.
        costs: of the step; None if refused.
        compile_seconds: of the step.
        step_time: on these devices; None if the chip is not known.
        scaling: step times on other numbers of chips, with the same batch per chip.
        largest: the largest batch per device, if requested.
    """

    model: str
    batch_size: int
    devices: int
    device_kind: str
    resident: bool
    fits: bool | None
    refusal: str | None
    memory: Memory | None
    evaluated_bytes: int
    costs: Costs | None
    compile_seconds: float
    step_time: StepTime | None
    scaling: list[StepTime]
    largest: LargestBatch | None


class _RefusedError(Exception):
    """The step does not fit into the memory of a device."""


def plan(
    config: RunConfig,
    devices: Sequence[jax.Device],
    chip: Chip | None,
    *,
    search: bool = False,
    say: Say = lambda text: None,
) -> Plan:
    """Compiles the step and, if requested, searches for the largest batch.

    Args:
        config: the run's config.
        devices: devices to compile for.
        chip: their figures; None if they are not known.
        search: whether to search, with up to seven more compilations.
        say: called with lines of progress, because compilations take minutes.

    Raises:
        UsageError: the config cannot be used.
    """
    step = PlannedStep(config, devices)
    used: Memory | None = None
    work, refusal = None, None
    start = time.perf_counter()
    say(f"compiling {config.model.name}, batch {config.batch_size}, for {len(devices)} devices")
    try:
        compiled = _compile(step)
        seconds = time.perf_counter() - start
        used = memory(compiled)
        work = costs_with_loops(config, devices, costs(compiled), say)
    except _RefusedError as error:
        seconds, refusal = time.perf_counter() - start, str(error)
    resident = step.evaluated_bytes
    now, scaling = None, []
    if chip and work:
        now = step_time(work, chip, len(devices))
        scaling = [step_time(work, chip, count) for count in CHIP_COUNTS]
    return Plan(
        model=config.model.name,
        batch_size=config.batch_size,
        devices=len(devices),
        device_kind=devices[0].device_kind,
        resident=step.resident,
        fits=None if chip is None else used is not None and used.total + resident <= chip.hbm_bytes,
        refusal=refusal,
        memory=used,
        evaluated_bytes=resident,
        costs=work,
        compile_seconds=seconds,
        step_time=now,
        scaling=scaling,
        largest=_search(config, devices, chip, used, resident, say) if search and chip else None,
    )


def _compile(step: PlannedStep) -> jax.stages.Compiled:
    try:
        return step.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _RefusedError(" ".join(str(error).split())[:300]) from None


def costs_with_loops(
    config: RunConfig, devices: Sequence[jax.Device], compiled: Costs, say: Say
) -> Costs:
    """Costs of a step whose modules may run in a loop, of which XLA counts the body once.

    Costs are linear in the number of modules of a stage, so they follow from those of two short
    networks without the loop.

    Args:
        config: config of the step.
        devices: devices that it was compiled for.
        compiled: costs of the compiled step, with loop bodies counted once.
        say: called with a line before each compilation.
    """
    if not config.model.scan_modules:
        return compiled
    counts: Sequence[int] = getattr(build_model(config, 1), "modules_per_stage", ())
    more = [count - 1 for count in counts]
    distance = math.gcd(*more)
    if not distance:
        return compiled
    found = []
    for part in (0, 1):
        modules = tuple(1 + part * count // distance for count in more)
        model = dataclasses.replace(config.model, modules_per_stage=modules, scan_modules=False)
        short = dataclasses.replace(config, model=model)
        say(f"compiling with {modules} modules for the costs")
        found.append(costs(_compile(PlannedStep(short, devices))))
    unrolled = found[0].towards(found[1], distance)
    if compiled.all_reduce_bytes < unrolled.all_reduce_bytes:  # some are in a loop
        return unrolled
    # None is in a loop, and XLA combines them differently in the short networks.
    return dataclasses.replace(unrolled, all_reduces=compiled.all_reduces)


def _search(
    config: RunConfig,
    devices: Sequence[jax.Device],
    chip: Chip,
    used: Memory | None,
    evaluated_bytes: int,
    say: Say,
) -> LargestBatch:
    """The largest batch per device; `used` is the memory of the config's batch size."""
    unit = len(devices) * config.accumulate_steps

    def total_bytes(parts: int) -> int | None:
        batch_size = parts * unit
        if batch_size == config.batch_size:
            return None if used is None else used.total + evaluated_bytes
        say(f"compiling with batch {batch_size}")
        try:
            larger = dataclasses.replace(config, batch_size=batch_size)
            check_config(larger)
            total = memory(_compile(PlannedStep(larger, devices))).total + evaluated_bytes
        except (_RefusedError, UsageError) as error:  # UsageError: above the largest batch_size
            say(f"batch {batch_size} is refused: {error}")
            return None
        say(f"batch {batch_size} takes {total / 2**20:,.1f} MiB a device")
        return total

    found = largest_batch(total_bytes, config.batch_size // unit, chip.hbm_bytes)
    parts = config.accumulate_steps
    return dataclasses.replace(
        found,
        batch=found.batch * parts,
        refused=None if found.refused is None else found.refused * parts,
    )
