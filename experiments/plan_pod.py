r"""Plans a run on TPUs without a TPU: memory, operations, step time, scaling.

    pip install -e '.[tpu]'
    python -m experiments.plan_pod --config=imagenet_attention92 --topology=v5e:4x4 \
        --config.batch_size=1024 --largest-batch

Compiles the train step of the config ahead of time with libtpu, which needs no TPU; no data is
read and nothing runs. `--topology=cpu:8` compiles for eight devices of this machine. Times are
estimates under the assumptions of `experiments/pod/predict.py`, not measurements. A compilation
takes minutes; `--largest-batch` needs up to seven more, and prints the result of each. A network
with `scan_modules` needs two more.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence

import jax

from experiments.pod.chips import Chip, open_topology
from experiments.pod.plan import Plan, plan
from experiments.pod.predict import StepTime
from rattn_jax.cli import Parser, errors_on_one_line, working
from rattn_jax.config.load import load_config, parse_config


def table(found: Plan, topology: str, chip: Chip | None) -> str:
    """The plan as a table of text."""
    rows = [
        ("network", found.model),
        ("topology", f"{topology}, {found.devices} x {found.device_kind}"),
        ("batch", f"{found.batch_size:,}, {found.batch_size // found.devices:,} a device"),
        ("data", "on every device" if found.resident else "streamed"),
        ("compilation", f"{found.compile_seconds:.0f} s"),
    ]
    if found.refusal:
        rows.append(("refused by the compiler", found.refusal))
    if found.memory:
        sizes = found.memory
        rows += [
            ("memory a device", ""),
            ("  state, data, batch", _mib(sizes.arguments)),
            ("  temporary", _mib(sizes.temporary)),
            ("  results", _mib(sizes.results)),
            ("  program", _mib(sizes.program)),
            ("  data to evaluate", _mib(found.evaluated_bytes)),
            ("  together", _mib(sizes.total + found.evaluated_bytes)),
        ]
    if chip:
        verdict = "fits" if found.fits else "does not fit"
        rows.append(("  of", f"{_mib(chip.hbm_bytes)}: {verdict}"))
    if found.costs:
        work = found.costs
        rows += [
            ("a step of a device", ""),
            ("  operations", f"{work.flops / 1e9:,.3f} GFLOP"),
            ("  memory traffic", f"{work.bytes_accessed / 1e9:,.2f} GB"),
            ("  all-reduced", f"{work.all_reduce_bytes / 1e6:,.2f} MB in {work.all_reduces:.0f}"),
            ("  other collectives", f"{work.other_collective_bytes / 1e6:,.2f} MB"),
        ]
    if found.largest:
        largest = found.largest
        refused = "" if largest.refused is None else f"; {largest.refused:,} are too many"
        rows.append(
            (
                "largest batch a device",
                f"{largest.batch:,} ({_mib(largest.total_bytes)}{refused}; "
                f"{largest.compilations} batches tried)",
            )
        )
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}".rstrip() for name, value in rows]
    if found.step_time:
        lines += ["", *_times(found)]
    return "\n".join(lines)


def _times(found: Plan) -> list[str]:
    lines = [
        "Estimates, not measurements (assumptions: experiments/pod/predict.py); ms a step:",
        f"{'chips':>8}{'products':>10}{'traffic':>10}{'all-reduce':>12}{'step':>10}"
        f"{'images/s':>12}{'efficiency':>12}",
    ]
    share = found.batch_size / found.devices
    times = {time.chips: time for time in [*found.scaling, found.step_time] if time}
    for _, time in sorted(times.items()):
        lines.append(_time(time, share))
    return lines


def _time(time: StepTime, share: float) -> str:
    alone = max(time.compute, time.memory_traffic)
    return (
        f"{time.chips:>8}{1e3 * time.compute:>10.2f}{1e3 * time.memory_traffic:>10.2f}"
        f"{1e3 * time.all_reduce:>12.3f}{1e3 * time.step:>10.2f}"
        f"{time.chips * share / time.step:>12,.0f}{alone / time.step:>11.1%} "
    ).rstrip()


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the plan."""
    parser = Parser("experiments.plan_pod", __doc__)
    parser.add_argument("--config", required=True, metavar="NAME", help="a config, or a file")
    parser.add_argument("--topology", default="v5e:4x4", help="chip and sides, or cpu:N (v5e:4x4)")
    parser.add_argument("--largest-batch", action="store_true", help="search for it")
    parser.add_argument("--json", action="store_true", help="machine-readable, on one line")
    options, overrides = parser.parse_with_overrides(arguments)
    jax.config.update("jax_platforms", "cpu")
    with errors_on_one_line(parser.prog):
        config = parse_config(load_config(options.config, overrides))
        with working(f"compiling for {options.topology}"):
            devices, chip = open_topology(options.topology)
            found = plan(
                config,
                devices,
                chip,
                search=options.largest_batch,
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )
        as_json = json.dumps({"topology": options.topology, **dataclasses.asdict(found)})
        print(as_json if options.json else table(found, options.topology, chip))


if __name__ == "__main__":
    main()
