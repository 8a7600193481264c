"""Costs of a compiled step: memory, operations, memory traffic, collectives."""

import dataclasses
import math
import re
from typing import Any

_TYPE_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_TYPE_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_COLLECTIVE = re.compile(
    r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on a device.

    Attributes:
        arguments: state, data and batch, in their layout on the device.
        temporary: peak size of the intermediate arrays.
        results: results that do not reuse the memory of arguments.
        program: the compiled program.
    """

    arguments: int
    temporary: int
    results: int
    program: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.arguments + self.temporary + self.results + self.program


@dataclasses.dataclass(frozen=True)
class Costs:
    """Operations and traffic of a step on one device.

    Attributes:
        flops: floating-point operations, as XLA counts them.
        bytes_accessed: operands and results of all operations, as XLA counts them.
        all_reduces: number of all-reduces.
        all_reduce_bytes: sizes of their results.
        other_collective_bytes: sizes of the results of other collectives; none are expected.
    """

    flops: float
    bytes_accessed: float
    all_reduces: float
    all_reduce_bytes: float
    other_collective_bytes: float

    def towards(self, other: "Costs", distance: int) -> "Costs":
        """Linear extrapolation: these costs at distance 0, the others at 1."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Costs(*(first + distance * (second - first) for first, second in pairs))


def memory(compiled: Any) -> Memory:
    """Memory of a compiled step."""
    plan = compiled.memory_analysis()
    return Memory(
        plan.argument_size_in_bytes,
        plan.temp_size_in_bytes,
        plan.output_size_in_bytes - plan.alias_size_in_bytes,
        plan.generated_code_size_in_bytes,
    )


def costs(compiled: Any) -> Costs:
    """Costs of a compiled step; the body of a loop counts once."""
    analysis = compiled.cost_analysis()
    found = collectives(compiled.as_text())
    reduced = [size for kind, size in found if kind == "all-reduce"]
    return Costs(
        analysis["flops"],
        analysis["bytes accessed"],
        len(reduced),
        sum(reduced),
        sum(size for kind, size in found if kind != "all-reduce"),
    )


def collectives(hlo: str) -> list[tuple[str, int]]:
    """Kind and result size in bytes of every collective in the text of a compiled program."""
    found = []
    for line in hlo.splitlines():
        match = _COLLECTIVE.search(line)
        if match:
            shapes = _SHAPE.findall(match[1])
            found.append((match[2], sum(_num_bytes(*shape) for shape in shapes)))
    return found


def _num_bytes(dtype: str, sides: str) -> int:
    return _TYPE_BYTES[dtype] * math.prod(int(side) for side in sides.split(",") if side)
