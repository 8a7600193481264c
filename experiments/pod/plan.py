"""A run's train step, compiled for a topology: what it takes and how long it may last."""

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
    """What was found for a config and a topology; sizes and costs are those of one device.

    Attributes:
        model: network.
        batch_size: of all devices together.
        devices: number of devices.
        device_kind: their kind.
        resident: whether the data lives on every device.
        fits: whether the memory suffices; None where there are no figures of the chip.
        refusal: the compiler's words, where it refused for lack of memory.
        memory: of the step; None if refused.
        evaluated_bytes: resident data of the splits to evaluate, without padding.
        costs: of the step; None if refused.
        compile_seconds: of the step.
        step_time: on these devices; None where there are no figures of the chip.
        scaling: on other numbers of chips with the same batch a chip.
        largest: the largest batch a device, if it was asked for.
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
    """The compiler finds no way to keep within the memory."""


def plan(
    config: RunConfig,
    devices: Sequence[jax.Device],
    chip: Chip | None,
    *,
    search: bool = False,
    say: Say = lambda text: None,
) -> Plan:
    """Compiles the step and, if asked, searches the largest batch.

    Args:
        config: the run's config.
        devices: devices to compile for.
        chip: their figures, if there are any.
        search: whether to search; takes up to seven more compilations.
        say: told what is being done, for it takes minutes.

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
    """Costs of a step, also if its modules run in a loop, whose body XLA counts once.

    Costs are linear in the number of modules of a stage, so two short networks without the loop
    give those of the long one.

    Args:
        config: of the step.
        devices: devices that it was compiled for.
        compiled: costs of the compiled step, with bodies counted once.
        say: told of each compilation.
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
    # None is in a loop. XLA bundles them otherwise in the short networks than in this one.
    return dataclasses.replace(unrolled, all_reduces=compiled.all_reduces)


def _search(
    config: RunConfig,
    devices: Sequence[jax.Device],
    chip: Chip,
    used: Memory | None,
    evaluated_bytes: int,
    say: Say,
) -> LargestBatch:
    """The largest batch a device; `used` is what the config's own takes, without evaluation."""
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
        except (_RefusedError, UsageError) as error:  # or beyond what a config may ask for
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
