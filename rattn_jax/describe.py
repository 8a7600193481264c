"""Prints sizes and costs of the networks, compared with the paper.

    rattn describe attention92 resnet152 --input-size=320
    rattn describe attention56_cifar --layers

Everything is computed from a trace: no network is initialised or run.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import jax

from rattn_jax.cli import Parser, align, errors_on_one_line, positive, working
from rattn_jax.models import create_model, list_models
from rattn_jax.models.summary import Description, Layer, describe, layers, standard_input


def _compare(ours: int, paper: float | None) -> str:
    return "" if paper is None else f"{paper / 1e6:,.1f} ({100 * (ours / paper - 1):+.1f} %)"


def _summary(descriptions: list[Description]) -> str:
    heading = ["network", "input", "depth", "parameters", "with statistics", "paper, M"]
    heading += ["multiply-adds, M", "paper, M", f"MB at batch {descriptions[0].batch_size}"]
    rows = [
        [
            d.name,
            str(d.input_size),
            str(d.depth),
            f"{d.parameters:,}",
            f"{d.parameters_and_statistics:,}",
            _compare(d.parameters, d.paper_parameters),
            f"{d.multiply_adds / 1e6:,.1f}",
            _compare(d.multiply_adds, d.paper_multiply_adds),
            f"{d.activation_bytes / 1e6:,.0f}",
        ]
        for d in descriptions
    ]
    return align([heading, *rows])


def _layers(name: str, options: argparse.Namespace) -> list[Layer]:
    size, num_classes = standard_input(name)
    return layers(create_model(name, num_classes), options.input_size or size)


def _layer_table(name: str, products: list[Layer]) -> str:
    rows = [
        [
            layer.name,
            " x ".join(map(str, layer.shape)),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
        ]
        for layer in products
    ]
    return align([[name, "output", "parameters", "multiply-adds"], *rows])


def _use_cpu() -> None:
    jax.config.update("jax_platforms", "cpu")  # tracing needs no accelerator


def _describe_all(names: list[str], options: argparse.Namespace) -> list[Description]:
    function = partial(describe, input_size=options.input_size, batch_size=options.batch_size or 64)
    with working("describing networks") as console:
        console.enter("describing networks", f"0 of {len(names)} done")
        found = []
        for description in _map(function, names):
            found.append(description)
            console.enter("describing networks", f"{len(found)} of {len(names)} done")
        return found


def _map(function: Callable[[str], Description], names: list[str]) -> Iterator[Description]:
    """Applies the function to each name, in one process per core."""
    workers = min(len(names), os.cpu_count() or 1)
    if workers == 1:
        yield from map(function, names)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_use_cpu) as pool:
        yield from pool.map(function, names)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what the command line asks for."""
    parser = Parser("rattn describe", __doc__)
    parser.add_argument("name", nargs="*", help="networks; all if none is given")
    parser.add_argument("--json", action="store_true", help="machine-readable, on one line")
    parser.add_argument("--layers", action="store_true", help="every convolution and product")
    parser.add_argument("--input-size", type=positive, help="side of the images")
    parser.add_argument("--batch-size", type=positive, help="for the activation memory (64)")
    options = parser.parse(arguments)
    if options.layers and options.batch_size:
        parser.error("--batch-size is for the memory, which --layers does not show: leave it out")
    _use_cpu()
    names = options.name or list_models()
    with errors_on_one_line(parser.prog):
        if options.layers and options.json:
            with working("tracing networks"):
                tables = {n: [dataclasses.asdict(x) for x in _layers(n, options)] for n in names}
            print(json.dumps(tables))
        elif options.layers:
            for name in names:
                with working(f"tracing {name}"):
                    found = _layers(name, options)
                print(_layer_table(name, found), flush=True)
        else:
            described = _describe_all(names, options)
            as_json = json.dumps([dataclasses.asdict(description) for description in described])
            print(as_json if options.json else _summary(described))


if __name__ == "__main__":
    main()
