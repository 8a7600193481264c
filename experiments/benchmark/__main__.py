"""Compares speed and memory of a network with the same one in idiomatic Flax and in PyTorch.

    python -m experiments.benchmark --workload=train --network=attention56_cifar --rounds=12

Each contender compiles and runs in its own process. They take turns, so that other load on the
machine affects all of them alike; a ratio is the median of the ratios of each turn. The first call
of a turn does not count, because the others have filled the caches. On CPU all run with huge pages,
which `main.py` requests, and without; "as shipped" compares with a baseline without them.

Training has gradients and optimizer (SGD with Nesterov momentum, weight decay), on random images.
Our step and that of idiomatic Flax also crop and flip them; PyTorch gets images that are ready.
Inference waits for the logits of each call; other contenders there are our network with batch norm
folded (`rattn_jax.load(..., fold_batch_norm=True)`) and, where it is installed, ONNX Runtime with
the exported file. Peak memory is that of the whole process, including compilation. The rate of the
machine is that of a product of two square matrices of the same dtype, measured in the same turns
(2048 x 2048, on accelerators 8192 x 8192). The network counts as 2 floating-point operations per
multiplication of the forward pass and image, 6 in training.

On an accelerator `--dtype=bfloat16` has PyTorch use autocast in training, and bfloat16 parameters
in inference; `--steps-per-call=100` runs as many updates in one call; `--torch-compile` adds
`torch.compile`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmark.report import figures, table
from experiments.benchmark.task import INFERENCE, TRAIN, Task
from experiments.benchmark.turns import contenders, take_turns
from rattn_jax.cli import Parser, errors_on_one_line, positive, set_up_process, working
from rattn_jax.errors import UsageError

_CIFAR = [f"attention{depth}_cifar" for depth in (56, 92, 128, 164, 236, 452)]
_NETWORKS = [*_CIFAR, "attention56", "attention92"]  # those of `torch_twin`
_BATCH_SIZE = {TRAIN: 64, INFERENCE: 1}
_CALLS_PER_ROUND = {TRAIN: 4, INFERENCE: 10}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table and, if asked, writes the same as JSON."""
    set_up_process()
    parser = Parser("experiments.benchmark", __doc__)
    parser.add_argument("--workload", choices=[TRAIN, INFERENCE], default=TRAIN)
    parser.add_argument("--network", choices=_NETWORKS, default="attention56_cifar")
    parser.add_argument("--batch-size", type=positive, help="64, in inference 1, unless given")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps-per-call", type=positive, default=1, help="in training")
    parser.add_argument("--torch-compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--rounds", type=positive, default=12, help="turns of each contender")
    parser.add_argument("--calls-per-round", type=positive, help="after one uncounted")
    parser.add_argument("--json", help="file to write")
    options = parser.parse(arguments)
    if options.workload == INFERENCE and options.steps_per_call > 1:
        parser.error("--steps-per-call is for --workload=train: leave it out")
    task = Task(
        options.network,
        options.workload,
        options.batch_size or _BATCH_SIZE[options.workload],
        options.dtype,
        options.steps_per_call,
    )
    with errors_on_one_line(parser.prog):
        calls_per_round = options.calls_per_round or _CALLS_PER_ROUND[options.workload]
        names, reasons = contenders(task, options.torch_compile)
        for reason in reasons:
            print(f"left out: {reason}", file=sys.stderr)
        with working(f"compiling, and measuring {options.rounds} turns"):
            turns = take_turns(task, names, options.rounds, calls_per_round)
        found = figures(task, turns, calls_per_round)
        print(table(found))
        if options.json:
            try:
                Path(options.json).write_text(json.dumps(found, indent=2))
            except OSError as error:
                raise UsageError(
                    f"--json={options.json} cannot be written ({error.strerror}): choose another "
                    "file"
                ) from error


if __name__ == "__main__":
    main()
