"""From the turns to figures, and to a table."""

import dataclasses
import platform
from typing import Any

import numpy as np

from experiments.benchmark.task import FLAX, MATMUL, OURS, TORCH, Task
from experiments.benchmark.turns import Key, Turns
from rattn_jax.parallel.cpus import num_cpus

_BASELINES = (FLAX, TORCH)


@dataclasses.dataclass(frozen=True)
class Result:
    """Figures of a contender; medians and quartiles are over the turns.

    Attributes:
        name: contender.
        huge_pages: whether glibc was asked for huge pages.
        images_per_second: at the median time.
        milliseconds: median of a call.
        milliseconds_quartiles: first and third quartile.
        compile_seconds: tracing and compilation.
        peak_process_bytes: largest resident memory of the process.
        planned_bytes: what XLA plans for a call; None for PyTorch.
        share_of_matmul_rate: operations of the network over those of a matrix product in the same
            time.
        speed: how many times as fast as each baseline with the same pages, by its name.
        speed_as_shipped: the same to each baseline without huge pages.
        memory: how many times the peak memory of each baseline with the same pages.
    """

    name: str
    huge_pages: bool
    images_per_second: float
    milliseconds: float
    milliseconds_quartiles: tuple[float, float]
    compile_seconds: float
    peak_process_bytes: int
    planned_bytes: int | None
    share_of_matmul_rate: float
    speed: dict[str, float]
    speed_as_shipped: dict[str, float]
    memory: dict[str, float]


def figures(task: Task, turns: dict[Key, Turns], calls_per_round: int) -> dict[str, Any]:
    """Task, hardware and results as a dictionary for JSON."""
    product = turns[MATMUL, False]
    product_rates = _operations(product) / product.seconds
    contenders = {key: turn for key, turn in turns.items() if key[0] != MATMUL}
    operations = next(_operations(turn) for key, turn in contenders.items() if key[0] == OURS)
    results = []
    for (name, huge_pages), turn in contenders.items():
        low, median, high = np.percentile(1e3 * turn.seconds, [25, 50, 75])
        same = {
            base: contenders[base, huge_pages]
            for base in _BASELINES
            if (base, huge_pages) in contenders
        }
        shipped = {base: contenders[base, False] for base in same}
        result = Result(
            name=name,
            huge_pages=huge_pages,
            images_per_second=1e3 * task.batch_size * task.steps_per_call / median,
            milliseconds=median,
            milliseconds_quartiles=(low, high),
            compile_seconds=turn.ready.compile_seconds,
            peak_process_bytes=turn.peak_bytes,
            planned_bytes=turn.ready.planned_bytes,
            share_of_matmul_rate=float(np.median(operations / turn.seconds / product_rates)),
            speed={base: _ratio(other, turn) for base, other in same.items()},
            speed_as_shipped={base: _ratio(other, turn) for base, other in shipped.items()},
            memory={base: turn.peak_bytes / other.peak_bytes for base, other in same.items()},
        )
        results.append(dataclasses.asdict(result))
    return {
        **dataclasses.asdict(task),
        "rounds": len(product.seconds),
        "calls_per_round": calls_per_round,
        "platform": product.ready.platform,
        "device": product.ready.device,
        "processor": _processor(),
        "cores": num_cpus(),
        "matmul_gflops_per_second": float(np.median(product_rates)) / 1e9,
        "results": results,
    }


def _operations(turns: Turns) -> float:
    operations = turns.ready.floating_point_operations
    assert operations is not None
    return operations


def _ratio(other: Turns, this: Turns) -> float:
    """How many times as fast `this` is, turn by turn."""
    return float(np.median(other.seconds / this.seconds))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    steps = f", {figures['steps_per_call']} steps a call" if figures["steps_per_call"] > 1 else ""
    baselines = [base for base in _BASELINES if base in figures["results"][0]["speed"]]
    columns = ["", "images/s", "ms a call (quartiles)", "compile, s", "planned by XLA, MB"]
    columns += ["peak memory of the process, MB", "share of the matmul rate"]
    columns += [f"speed to {base} (as shipped)" for base in baselines]
    columns += [f"memory to {base}" for base in baselines]
    lines = [
        f"{figures['workload']} `{figures['network']}`, batch {figures['batch_size']}, "
        f"{figures['dtype']}{steps}; median of {figures['rounds']} turns of "
        f"{figures['calls_per_round']} calls; {figures['device']}, {figures['cores']} cores, "
        f"{figures['processor']}; matrix product "
        f"{figures['matmul_gflops_per_second']:,.0f} GFLOP/s.",
        "",
        _row(columns),
        "|---" * len(columns) + "|",
    ]
    for result in figures["results"]:
        low, high = result["milliseconds_quartiles"]
        planned = result["planned_bytes"]
        cells = [
            result["name"] + (", huge pages" if result["huge_pages"] else ""),
            f"{result['images_per_second']:,.0f}",
            f"{_short(result['milliseconds'])} ({_short(low)} to {_short(high)})",
            f"{result['compile_seconds']:.1f}",
            "" if planned is None else f"{planned / 1e6:,.0f}",
            f"{result['peak_process_bytes'] / 1e6:,.0f}",
            f"{100 * result['share_of_matmul_rate']:.0f} %",
        ]
        cells += [
            f"{result['speed'][base]:.2f} ({result['speed_as_shipped'][base]:.2f})"
            for base in baselines
        ]
        cells += [f"{result['memory'][base]:.2f}" for base in baselines]
        lines.append(_row(cells))
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
