"""Compares the speed of training with PyTorch, the most important tasks first."""

import json

from experiments.accelerator.record import Record
from experiments.benchmark.report import figures, table
from experiments.benchmark.task import FLAX, TRAIN, Task
from experiments.benchmark.turns import contenders, take_turns
from rattn_jax.errors import UsageError

_CIFAR, _IMAGENET = "attention56_cifar", "attention56"
TASKS = (
    Task(_CIFAR, TRAIN, 64, "bfloat16", 100),
    Task(_CIFAR, TRAIN, 512, "bfloat16", 20),
    Task(_IMAGENET, TRAIN, 128, "bfloat16", 1),
    Task(_CIFAR, TRAIN, 64, "float32", 100),
    Task("attention92_cifar", TRAIN, 512, "bfloat16", 20),
    Task("attention92", TRAIN, 128, "bfloat16", 1),
    Task(_CIFAR, TRAIN, 64, "bfloat16", 1),
    Task("attention452_cifar", TRAIN, 64, "bfloat16", 20),
)
TINY_TASKS = (Task(_CIFAR, TRAIN, 2, "float32", 1),)

_ROUNDS = 5
_SECONDS_OF_A_TASK = 150  # mostly compilation, of which torch.compile has two thirds


def measure_speed(record: Record, tasks: tuple[Task, ...] = TASKS) -> bool:
    """Measures as many tasks as the time allows; returns whether those have all ended."""
    is_whole = True
    for task in tasks:
        if record.seconds_left() < _SECONDS_OF_A_TASK and tasks is TASKS:
            record.add(left_out=str(task), reason="no time is left")
            continue
        names, _ = contenders(task, torch_compile=tasks is TASKS)
        names = [name for name in names if name != FLAX]
        try:
            turns = take_turns(task, names, _ROUNDS, 1)
        except UsageError as error:
            record.add(left_out=str(task), reason=str(error))
            is_whole = False
            continue
        found = figures(task, turns, 1)
        print(table(found), flush=True)
        record.add(**json.loads(json.dumps(found)))
    return is_whole
