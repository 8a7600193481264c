"""Checks an accelerator's numbers, measures its speed, and trains on it, within a time limit.

    python -m experiments.accelerator check --out=DIR --minutes=2
    python -m experiments.accelerator speed --out=DIR --minutes=10
    python -m experiments.accelerator train --out=DIR --minutes=8 \
        --config=cifar10_attention56_gpu --config.data_dir=DATA

check compares logits, an update and running averages with those of a CPU, in float32 and bfloat16;
the exit status is 1 if a difference exceeds its limit. speed compares training with PyTorch and
torch.compile. train follows the config's recipe, with as many updates as fit into the time.

Every row of results is printed and written to DIR at once, and so is every checkpoint, so a command
that is cut off leaves its results. For a machine without a network,

    python -m experiments.accelerator bundle --out=.bundle --config=cifar10_attention56_gpu \
        --data-dir=DATA
    bash .bundle/run.sh train --out=DIR --minutes=8 --config=cifar10_attention56_gpu \
        --config.data_dir=.bundle/data --start=.bundle/start
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rattn_jax.cli import Parser, errors_on_one_line, positive, set_up_process

_COMMANDS = ("check", "speed", "train", "bundle")
_ONLY_FOR = {
    "tiny": ("check", "speed"),
    "config": ("train", "bundle"),
    "config.KEY": ("train", "bundle"),
    "updates": ("train",),
    "start": ("train",),
    "data_dir": ("bundle",),
}
_PROG = "experiments.accelerator"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; the exit status is 1 if it failed."""
    parser = Parser(_PROG, __doc__)
    parser.add_argument("command", choices=_COMMANDS)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--minutes", type=float, default=5, help="time limit")
    parser.add_argument("--tiny", action="store_true", help="check, speed: small, to rehearse")
    parser.add_argument("--config", metavar="NAME", help="train, bundle: a config, or a file")
    parser.add_argument("--updates", type=positive, help="train: first guess; else the config's")
    parser.add_argument("--start", type=Path, help="train: a run's folder to begin with")
    parser.add_argument("--data-dir", metavar="DIR", help="bundle: folder of TFDS")
    options, overrides = parser.parse_with_overrides(arguments)
    if options.command in ("train", "bundle") and options.config is None:
        parser.error(f"{options.command} needs --config")
    if options.command == "bundle" and options.data_dir is None:
        parser.error("bundle needs --data-dir")
    given = {"config.KEY": overrides, **vars(options)}
    for name, commands in _ONLY_FOR.items():
        if given[name] and options.command not in commands:
            flag = f"--{name.replace('_', '-')}"
            parser.error(f"{flag} is for {' and '.join(commands)}: leave it out")
    if options.start is not None and not options.start.is_dir():
        parser.error(f"--start={options.start} is no folder: give that of a run")
    set_up_process()
    with errors_on_one_line(_PROG, options.out):
        if options.command == "bundle":
            from experiments.accelerator.bundle import make_bundle

            make_bundle(Path(options.out), options.config, options.data_dir, overrides)
            return
        from experiments.accelerator.check import CASES, TINY_CASES, check
        from experiments.accelerator.record import Record
        from experiments.accelerator.speed import TASKS, TINY_TASKS, measure_speed
        from experiments.accelerator.train import train

        record = Record(options.out, options.command, options.minutes)
        if options.command == "check":
            is_right = check(record, TINY_CASES if options.tiny else CASES)
        elif options.command == "speed":
            is_right = measure_speed(record, TINY_TASKS if options.tiny else TASKS)
        else:
            is_right = train(record, options.config, overrides, options.updates, options.start)
    sys.exit(not is_right)


if __name__ == "__main__":
    main()
