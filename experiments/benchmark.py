"""Speed and memory of a train step, beside the same network in idiomatic Flax.

    python -m experiments.benchmark [--depth=56] [--batch-size=64] [--rounds=12] [--json=FILE]

Each contender compiles and runs in a process of its own; they take turns, so that what else the
machine does strikes all of them alike, and a ratio is the median of the ratios turn by turn. The
first step of a turn does not count: it finds the caches full of what the others have left. Both
networks run with huge pages, which `main.py` asks for, and without. The step is the one of
training, with augmentation, gradients and optimizer, on random images. "Peak memory" is that of
the whole process; what XLA plans for the step's arrays stands beside it. The machine's rate is
that of a product of two 2048 x 2048 matrices, measured in the same turns; a step counts as 6
floating-point operations for each multiplication of the forward pass and each image.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

OURS, FLAX, MATMUL = "rattn_jax", "idiomatic Flax", "matrix product"
HUGE_PAGES = "huge pages"
_CONTENDERS = [(OURS, True), (FLAX, True), (OURS, False), (FLAX, False), (MATMUL, False)]
_MATRIX_SIZE = 2048
_MODULES = {56: 1, 92: 2, 128: 3, 164: 4, 236: 6}  # trunk depth: modules a stage


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a contender's process says when it is ready.

    Attributes:
        device: kind of the device.
        compile_seconds: tracing and compilation.
        step_bytes: arguments, results and temporary arrays of the step as XLA plans them.
        floating_point_operations: of one step.
    """

    device: str
    compile_seconds: float
    step_bytes: int
    floating_point_operations: float


@dataclasses.dataclass(frozen=True)
class Result:
    """Figures of a contender; quartiles and ratio are over the turns.

    Attributes:
        name: contender.
        images_per_second: at the median time.
        milliseconds: median of a step.
        milliseconds_quartiles: first and third quartile.
        compile_seconds: tracing and compilation.
        peak_process_bytes: largest resident memory of the process.
        step_bytes: what XLA plans for one step.
        share_of_matmul_rate: of the machine's rate in float32.
        speed_ratio: how many times as fast as idiomatic Flax with the same pages.
        speed_ratio_as_shipped: how many times as fast as idiomatic Flax without huge pages.
    """

    name: str
    images_per_second: float
    milliseconds: float
    milliseconds_quartiles: tuple[float, float]
    compile_seconds: float
    peak_process_bytes: int
    step_bytes: int
    share_of_matmul_rate: float
    speed_ratio: float
    speed_ratio_as_shipped: float


def _train_step(name: str, depth: int, batch_size: int) -> tuple[Callable[[], object], Compiled]:
    """A function that does one update, and what its compilation took."""
    import jax

    from experiments.flax_twin import FlaxTwin
    from rattn_jax.augment import augment_images
    from rattn_jax.describe import describe
    from rattn_jax.feed import mean_image_normalization
    from rattn_jax.models import create_model
    from rattn_jax.optimizer import make_optimizer, make_schedule
    from rattn_jax.parallel import AXIS, make_mesh, map_replicas, replicate
    from rattn_jax.steps import ResidentData, train_steps
    from rattn_jax.train_state import create_train_state

    network = f"attention{depth}_cifar"
    ours = create_model(network, 10)
    model = ours if name == OURS else FlaxTwin(10, num_modules=_MODULES[depth])
    schedule = make_schedule("step", learning_rate=0.1, num_train_steps=1)
    optimizer = make_optimizer("sgd", schedule, momentum=0.9, weight_decay=1e-4)
    mesh = make_mesh(jax.devices()[:1])
    function = partial(
        train_steps,
        loop=False,
        model=model,
        optimizer=optimizer,
        augment=partial(augment_images, crop_padding=4, flip=True),
        num_classes=10,
        seed=0,
        axis_name=AXIS,
    )
    generator = np.random.RandomState(0)
    images = generator.randint(0, 256, (10 * batch_size, 32, 32, 3)).astype(np.uint8)
    labels = generator.randint(0, 10, len(images)).astype(np.int32)
    data = replicate(ResidentData(images, labels, mean_image_normalization(images)), mesh)
    # The variables of both networks have the same names: only one needs to be initialised.
    initial = create_train_state(jax.random.key(0), ours, optimizer, (32, 32, 3))
    state = replicate(initial, mesh)
    indices = np.arange(batch_size, dtype=np.int32)[None]

    start = time.perf_counter()
    mapped: Any = map_replicas(function, mesh, "shard_map", num_batches=1, donate_state=True)
    step = mapped.lower(state, data, indices).compile()
    seconds = time.perf_counter() - start
    plan = step.memory_analysis()
    planned = plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes
    operations = 6 * batch_size * describe(network).multiply_adds

    def update() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, data, indices))

    device = jax.devices()[0].device_kind
    return update, Compiled(device, seconds, planned - plan.alias_size_in_bytes, operations)


def _matrix_product() -> tuple[Callable[[], object], Compiled]:
    import jax
    import jax.numpy as jnp

    matrix = jnp.asarray(np.random.RandomState(0).normal(size=(_MATRIX_SIZE,) * 2), jnp.float32)
    product = jax.jit(jnp.dot)
    operations = 2 * _MATRIX_SIZE**3
    compiled = Compiled(jax.devices()[0].device_kind, 0.0, 3 * matrix.nbytes, operations)
    return lambda: jax.block_until_ready(product(matrix, matrix)), compiled


def _work(connection: Connection, name: str, depth: int, batch_size: int) -> None:
    """A contender's process: does as many steps as it is told, says how long each took."""
    if name == MATMUL:
        step, compiled = _matrix_product()
    else:
        step, compiled = _train_step(name, depth, batch_size)
    step()
    connection.send(compiled)
    while count := connection.recv():
        step()
        start = time.perf_counter()
        for _ in range(count):
            step()
        connection.send((time.perf_counter() - start) / count)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _start(name: str, huge_pages: bool, depth: int, batch_size: int) -> Connection:
    """Starts a contender's process; glibc reads its settings when a process begins."""
    context = multiprocessing.get_context("spawn")
    here, remote = context.Pipe()
    os.environ["GLIBC_TUNABLES"] = f"glibc.malloc.hugetlb={int(huge_pages)}"
    context.Process(target=_work, args=(remote, name, depth, batch_size), daemon=True).start()
    remote.close()
    return here


def measure(depth: int, batch_size: int, rounds: int, steps_per_round: int) -> dict[str, Any]:
    """Runs all contenders in turn; hardware and figures as a dictionary for JSON."""
    connections: dict[tuple[str, bool], Connection] = {}
    compiled: dict[tuple[str, bool], Compiled] = {}
    for key in _CONTENDERS:  # one after the other: compilation is timed, too
        connections[key] = _start(*key, depth, batch_size)
        compiled[key] = connections[key].recv()

    turns: dict[tuple[str, bool], list[float]] = {key: [] for key in _CONTENDERS}
    for _ in range(rounds):
        for key, connection in connections.items():
            connection.send(steps_per_round)
            turns[key].append(connection.recv())
    seconds = {key: np.array(values) for key, values in turns.items()}
    peaks = {}
    for key, connection in connections.items():
        connection.send(0)
        peaks[key] = connection.recv()

    products = compiled[MATMUL, False].floating_point_operations / seconds[MATMUL, False]
    results = []
    for key in _CONTENDERS[:-1]:
        name, huge_pages = key
        rates = compiled[key].floating_point_operations / seconds[key]
        low, median, high = statistics.quantiles(1e3 * seconds[key], n=4)
        results.append(
            Result(
                name=f"{name}, {HUGE_PAGES}" if huge_pages else name,
                images_per_second=1e3 * batch_size / median,
                milliseconds=median,
                milliseconds_quartiles=(low, high),
                compile_seconds=compiled[key].compile_seconds,
                peak_process_bytes=peaks[key],
                step_bytes=compiled[key].step_bytes,
                share_of_matmul_rate=float(np.median(rates / products)),
                speed_ratio=float(np.median(seconds[FLAX, huge_pages] / seconds[key])),
                speed_ratio_as_shipped=float(np.median(seconds[FLAX, False] / seconds[key])),
            )
        )
    return {
        "network": f"attention{depth}_cifar",
        "batch_size": batch_size,
        "rounds": rounds,
        "steps_per_round": steps_per_round,
        "device": compiled[OURS, True].device,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "matmul_gflops_per_second": float(np.median(products)) / 1e9,
        "results": [dataclasses.asdict(result) for result in results],
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"Train step of `{figures['network']}`, batch {figures['batch_size']}; median of "
        f"{figures['rounds']} turns of {figures['steps_per_round']} steps; {figures['device']}, "
        f"{figures['cores']} cores, {figures['processor']}; matrix product "
        f"{figures['matmul_gflops_per_second']:.0f} GFLOP/s.",
        "",
        "| | images/s | ms a step (quartiles) | compile, s | peak memory of the process, MB "
        "| step's arrays, MB | share of the matmul rate | speed: same pages | as shipped |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in figures["results"]:
        low, high = result["milliseconds_quartiles"]
        lines.append(
            f"| {result['name']} | {result['images_per_second']:.0f} "
            f"| {result['milliseconds']:.0f} ({low:.0f} to {high:.0f}) "
            f"| {result['compile_seconds']:.1f} | {result['peak_process_bytes'] / 1e6:,.0f} "
            f"| {result['step_bytes'] / 1e6:,.0f} | {100 * result['share_of_matmul_rate']:.0f} % "
            f"| {result['speed_ratio']:.2f} | {result['speed_ratio_as_shipped']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints the table and, if asked, writes the same as JSON."""
    parser = argparse.ArgumentParser(prog="experiments.benchmark", description=__doc__)
    parser.add_argument("--depth", type=int, choices=sorted(_MODULES), default=56)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=12, help="turns, at least 2")
    parser.add_argument("--steps-per-round", type=int, default=4, help="after one uncounted")
    parser.add_argument("--json", help="file to write")
    options = parser.parse_args()
    figures = measure(options.depth, options.batch_size, options.rounds, options.steps_per_round)
    print(table(figures))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
