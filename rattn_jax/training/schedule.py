"""What is due after which update, as numbers alone.

schedule = build_schedule(config, resident=True, on_cpu=False)
schedule.due(100)          # Due(log=True, eval_splits=(), save=False)
schedule.next_stop(100)    # 200: nothing is due before
"""

import dataclasses
from collections.abc import Collection

from rattn_jax.config.schema import RunConfig

TRAIN, CHECKPOINT = "train", "checkpoint"  # what may have been done already, besides the splits

_STEPS_PER_CALL = 100  # on accelerators, with data on the device


@dataclasses.dataclass(frozen=True)
class Due:
    """What is to be done before training goes on; false if nothing is.

    Attributes:
        log: whether to write the line of training.
        eval_splits: splits to evaluate, in this order.
        save: whether to save a checkpoint.
    """

    log: bool
    eval_splits: tuple[str, ...]
    save: bool

    def __bool__(self) -> bool:
        return self.log or self.save or bool(self.eval_splits)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When a run does what. All numbers are of updates.

    Attributes:
        num_train_steps: of the whole run.
        log_every_steps: from one line of training to the next.
        eval_every_steps: from one evaluation to the next.
        checkpoint_every_steps: from one checkpoint to the next.
        steps_per_call: that a call of the train step does where as many are left until something
            is due; otherwise 10, where that is fewer, or one. Each number is compiled by itself,
            which takes a GPU three quarters of a minute, so there are no others.
        profile_steps: begin and end of the trace, where no call goes beyond; None traces nothing.
        eval_splits: splits to evaluate during training.
        final_splits: splits to evaluate at the end.
    """

    num_train_steps: int
    log_every_steps: int
    eval_every_steps: int
    checkpoint_every_steps: int
    steps_per_call: int
    profile_steps: tuple[int, int] | None
    eval_splits: tuple[str, ...]
    final_splits: tuple[str, ...]

    def is_over(self, step: int) -> bool:
        """Whether the run is finished at `step`."""
        return step >= self.num_train_steps

    def ending_at(self, step: int) -> "Schedule":
        """The same schedule, but for its end."""
        return dataclasses.replace(self, num_train_steps=step)

    def splits(self, step: int) -> tuple[str, ...]:
        """Splits that an evaluation at `step` covers."""
        return self.final_splits if self.is_over(step) else self.eval_splits

    def due(self, step: int, done: Collection[str] = ()) -> Due:
        """What is due at `step`.

        Args:
            step: number of updates done.
            done: what has been done already: TRAIN, CHECKPOINT, or names of splits.
        """

        def is_due(every: int) -> bool:
            return step > 0 and (step % every == 0 or self.is_over(step))

        splits = self.splits(step) if is_due(self.eval_every_steps) else ()
        return Due(
            log=is_due(self.log_every_steps) and TRAIN not in done,
            eval_splits=tuple(split for split in splits if split not in done),
            save=is_due(self.checkpoint_every_steps) and CHECKPOINT not in done,
        )

    def next_due(self, step: int) -> int:
        """The first step after `step` at which something is due."""
        periods = (self.log_every_steps, self.eval_every_steps, self.checkpoint_every_steps)
        return min(self.num_train_steps, *(period * (step // period + 1) for period in periods))

    def next_stop(self, step: int) -> int:
        """Step at which the next call of the train step ends: nothing is due before it."""
        stops = [at for at in self.profile_steps or () if at > step]
        room = min([self.next_due(step), *stops]) - step
        calls = [count for count in (self.steps_per_call, 10, 1) if count <= self.steps_per_call]
        return step + next(count for count in calls if count <= room)


def build_schedule(config: RunConfig, *, resident: bool, on_cpu: bool) -> Schedule:
    """The schedule of a run.

    Args:
        config: the run's config.
        resident: whether its data lives on the devices.
        on_cpu: whether these are CPUs.
    """
    by_default = _STEPS_PER_CALL if resident and not on_cpu else 1
    # With a validation split, the test split is evaluated once, at the end.
    held_out = config.validation_examples > 0
    return Schedule(
        num_train_steps=config.num_train_steps,
        log_every_steps=config.log_every_steps,
        eval_every_steps=config.eval_every_steps,
        checkpoint_every_steps=config.checkpoint_every_steps,
        steps_per_call=config.steps_per_call or by_default,
        profile_steps=config.profile_steps,
        eval_splits=("validation",) if held_out else ("test",),
        final_splits=("validation", "test") if held_out else ("test",),
    )
