"""The training loop: what happens after which update."""

import dataclasses
import resource
import sys
from collections.abc import Sequence
from contextlib import closing

import jax
from etils import epath

from rattn_jax.errors import NonfiniteError, StoppedError
from rattn_jax.models.scan_params import unstack_modules
from rattn_jax.parallel.mesh import agree, replicate
from rattn_jax.parallel.preemption import StopSignals
from rattn_jax.parallel.watchdog import Watchdog
from rattn_jax.runs.checkpointer import Checkpoints
from rattn_jax.runs.console import Progress
from rattn_jax.runs.metrics_log import Recorder
from rattn_jax.training import metrics
from rattn_jax.training.profiling import Profiler, Throughput
from rattn_jax.training.run_report import ReportWriter
from rattn_jax.training.state import TrainState
from rattn_jax.training.step_functions import Trainer


@dataclasses.dataclass(frozen=True)
class Run:
    """What the loop works with."""

    folder: epath.Path
    trainer: Trainer
    checkpoints: Checkpoints
    recorder: Recorder
    report: ReportWriter
    stop: StopSignals
    progress: Progress

    def to_the_end(self, state: TrainState) -> TrainState:
        """Trains what is left, and evaluates what is due and not recorded yet.

        Raises:
            StoppedError: a signal has stopped it.
        """
        config, start = self.trainer.config, int(state.step)
        is_done = start >= config.num_train_steps
        if start and (is_done or start % config.eval_every_steps == 0):
            recorded, undrawn = self._recorded(start)
            splits = [split for split, has in recorded.items() if not has or (undrawn and is_done)]
            if not self._evaluate(state, splits):
                raise StoppedError(f"stopped in an evaluation after step {start}: run again")
            if is_done and all(recorded.values()):
                self.progress.say(f"nothing is left to do: {start} steps are done and evaluated")
        if is_done:
            return state
        mesh = self.trainer.mesh
        self.progress.say(f"training on {mesh.size} x {mesh.devices.flat[0].device_kind}")
        with (
            Profiler(self.folder / "profile", config.profile_steps) as profiler,
            closing(Watchdog(config.process_timeout_seconds)) as watchdog,
        ):
            state, is_done = self._train(state, profiler, watchdog)
        self._stop_if_nonfinite(state)  # a signal may have come before the next line of metrics
        self.checkpoints.save(unstack_modules(state))
        self.checkpoints.wait()
        if not is_done:
            raise StoppedError(f"stopped after step {int(state.step)}, saved: run again to go on")
        return state

    def _train(
        self, state: TrainState, profiler: Profiler, watchdog: Watchdog
    ) -> tuple[TrainState, bool]:
        """State at the end, or when a stop was requested; and whether it is the end."""
        config, trainer = self.trainer.config, self.trainer
        total = config.num_train_steps
        periods = (config.log_every_steps, config.eval_every_steps, config.checkpoint_every_steps)
        throughput = Throughput(config.batch_size)
        step, skipped = int(state.step), int(state.num_nonfinite)
        while step < total:
            if self.stop.requested():
                return state, False
            self.checkpoints.check()
            profiler.reached(step, state)
            due = [p * (step // p + 1) for p in periods]
            due += [at for at in profiler.steps or () if at > step]
            end = min(step + trainer.steps_per_call, total, *due)
            if not trainer.has_compiled(end - step):
                watchdog.begins(None, step)
            state = trainer.train(state, step, end, throughput)
            step = end
            watchdog.asked(step)
            log, evaluate, save = (step % period == 0 or step == total for period in periods)
            if not (log or evaluate or save):
                continue
            jax.block_until_ready(state)
            throughput.stop()
            self._stop_if_nonfinite(state)
            if log:
                state = self._log(state, throughput, int(state.num_nonfinite) - skipped)
                skipped = int(state.num_nonfinite)
            if evaluate:
                watchdog.begins("evaluation", step)
                if not self._evaluate(state, trainer.due(step)):
                    return state, False
            if save:  # last, so that a checkpoint has all its lines before it
                watchdog.begins("saving", step)
                self.checkpoints.save(unstack_modules(state))
            # In which the others wait for the process that draws the report.
            watchdog.begins("training after an evaluation" if evaluate else "training", step)
        profiler.reached(step, state)
        return state, True

    def _log(self, state: TrainState, throughput: Throughput, num_skipped: int) -> TrainState:
        """Writes the line of training; the state with its sums emptied."""
        step, speed = int(state.step), throughput.take()
        self.recorder.record(
            step,
            "train",
            metrics.summarize(state.metrics),
            learning_rate=self.trainer.learning_rate(step),
            images_per_second=speed.images_per_second if speed else None,
            steps_per_sec=speed.steps_per_sec if speed else None,
            input_wait_share=speed.input_wait_share if speed else None,
            peak_memory_bytes=_peak_memory_bytes(self.trainer.mesh.local_devices),
            skipped_updates=num_skipped,
        )
        if num_skipped:
            path = self.trainer.keep_batch(self.folder / "nonfinite", int(state.nonfinite_step))
            self.progress.say(
                f"{num_skipped} updates gave NaN or infinity and were left out; the batch of the "
                f"last is in {path}"
            )
        return dataclasses.replace(state, metrics=replicate(metrics.empty(), self.trainer.mesh))

    def _evaluate(self, state: TrainState, splits: list[str]) -> bool:
        """Evaluates splits and draws the report; False if a stop was requested meanwhile."""
        results = {}
        for split in splits:
            sums = self.trainer.evaluate(state, split, self.recorder, self.stop.requested)
            if sums is None:
                return False
            results[split] = sums
        if results:
            self.report.update(state, results, self.recorder.rows)
        return True

    def _recorded(self, step: int) -> tuple[dict[str, bool], bool]:
        """Whether each split has its line of this step, and whether the report lacks it."""
        splits = self.trainer.due(step)
        has = [self.recorder.has(split, step) for split in splits]
        *has, undrawn = agree([*has, self.report.is_missing(step)])
        return dict(zip(splits, has, strict=True)), undrawn

    def _stop_if_nonfinite(self, state: TrainState) -> None:
        """Raises NonfiniteError if training stands still: before anything of it is saved."""
        step = int(state.step)
        if int(state.nonfinite_step) != step:
            return
        path = self.trainer.keep_batch(self.folder / "nonfinite", step)
        raise NonfiniteError(
            f"the update after step {step} gave NaN or infinity; its batch is in {path}: lower "
            "the learning rate, look at the batch, or go on with --config.on_nonfinite=skip"
        )


def _peak_memory_bytes(devices: Sequence[jax.Device]) -> int:
    """The largest high-water mark of the devices' memory; on CPU, that of the process."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in devices]
    if any(peaks):
        return max(peaks)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
