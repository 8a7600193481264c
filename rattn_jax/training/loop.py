"""The training loop: it does what is due at a step, then trains to the next one.

    state = train(job, state)

The loop calls its collaborators (loader, steps, checkpointer, ...); none of them calls the loop.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import numpy as np
from etils import epath

from rattn_jax.config.schema import KeepBestConfig
from rattn_jax.data.loaders import Loader
from rattn_jax.errors import NonfiniteError, Preempted
from rattn_jax.parallel.mesh import broadcast_from_main, replicate
from rattn_jax.parallel.preemption import PreemptionGuard
from rattn_jax.parallel.watchdog import Watchdog
from rattn_jax.report.mask_picture import draw_masks
from rattn_jax.report.page import PAGE
from rattn_jax.report.unsettled import explain_loss
from rattn_jax.runs.best import best_step, early_end, is_enough
from rattn_jax.runs.checkpointer import Checkpointer
from rattn_jax.runs.console import Console
from rattn_jax.runs.files import replace_bytes
from rattn_jax.runs.metrics_log import MetricWriter
from rattn_jax.runs.peak_memory import peak_bytes_of_process
from rattn_jax.training import metrics
from rattn_jax.training.evaluation import EvalResult, evaluate
from rattn_jax.training.page_data import PageProbe
from rattn_jax.training.profiling import Profiler, Throughput
from rattn_jax.training.run_report import ReportWriter
from rattn_jax.training.schedule import CHECKPOINT, TRAIN, Schedule
from rattn_jax.training.state import TrainState
from rattn_jax.training.step_functions import StepFunctions

_KEPT_BATCHES = 10  # that gave NaN or infinity; a hundred of ImageNet's would take 4 GB


@dataclasses.dataclass(frozen=True)
class Job:
    """The objects that the loop works with; `folder` is the folder of the run."""

    folder: epath.Path
    schedule: Schedule
    loader: Loader
    steps: StepFunctions
    keep_best: KeepBestConfig
    checkpointer: Checkpointer
    writer: MetricWriter
    probe: PageProbe
    report: ReportWriter
    console: Console
    preemption: PreemptionGuard
    watchdog: Watchdog
    profiler: Profiler
    throughput: Throughput


def train(job: Job, state: TrainState) -> TrainState:
    """Trains to the end of the schedule, and runs evaluations that are due and not recorded yet.

    Args:
        job: the objects to work with.
        state: a new or a restored state, on the devices.

    Raises:
        Preempted: a signal has arrived; the state has been saved.
        NonfiniteError: an update gave NaN or infinity; the state has not been saved.
        SaveError: a checkpoint or metrics could not be written.
    """
    step, num_nonfinite = int(state.step), num_reported(job)
    job.checkpointer.best_of = partial(best_step, job.writer.history, job.keep_best)
    done = already_done(job, step)
    try:
        while True:
            due = job.schedule.due(step, done)
            if due:
                jax.block_until_ready(state)
                job.throughput.stop()
                stop_if_nonfinite(job, state)  # before anything of this state is written
            if due.log:
                state = log_training(job, state, int(state.num_nonfinite) - num_nonfinite)
                num_nonfinite = int(state.num_nonfinite)
            if due.save:  # a resumed run writes no line of training again, but evaluates
                save(job, state, step)
            results = evaluate_splits(job, state, due.eval_splits, step)
            is_best, is_last = choose(job, step) if results or done else (False, False)
            if is_best:
                save(job, state, step)
            if job.schedule.is_over(step):
                job.checkpointer.wait()
                return state
            if is_last:  # by patience: what is due at the end is due now
                say_early_end(job, step)
                job = dataclasses.replace(job, schedule=job.schedule.ending_at(step))
                evaluated = frozenset(results) or already_done(job, step) - {TRAIN}
                done = evaluated | logged(job, step)
                continue
            if due:
                watch_training(job, step, has_evaluated=bool(results))
            done = frozenset()
            job.preemption.check()
            job.checkpointer.check()
            job.profiler.update(step, state)
            end = job.schedule.next_stop(step)
            state = train_to(job, state, step, end)
            step = end
    except Preempted:
        stop_if_nonfinite(job, state)
        job.checkpointer.save_at_last(job.steps.to_saved(state))
        raise Preempted(
            f"stopped after step {int(state.step)}, saved: run again to resume"
        ) from None


def num_reported(job: Job) -> int:
    """The number of skipped updates that train lines have told of."""
    rows = job.writer.history
    return broadcast_from_main([sum(row.get("skipped_updates") or 0 for row in rows)])[0]


def logged(job: Job, step: int) -> frozenset[str]:
    """TRAIN if there is a train line of `step`, for `Schedule.due`."""
    return frozenset({TRAIN} if broadcast_from_main([job.writer.has("train", step)])[0] else ())


def save(job: Job, state: TrainState, step: int) -> None:
    """Begins to save a checkpoint, unless the step has one."""
    job.watchdog.enter("saving", step)
    job.console.enter("saving a checkpoint")
    job.checkpointer.save(job.steps.to_saved(state))


def watch_training(job: Job, step: int, *, has_evaluated: bool) -> None:
    """Tells the watchdog of the updates until something is due."""
    # After an evaluation others wait until the main process has drawn the report.
    after = " after an evaluation" if has_evaluated else ""
    count = job.schedule.next_due(step) - step
    at_most = 1 << (count - 1).bit_length()  # phases of one name are about equally long
    job.watchdog.enter(f"training of up to {at_most} updates{after}", step)


def evaluate_splits(
    job: Job, state: TrainState, splits: Sequence[str], step: int
) -> dict[str, EvalResult]:
    """Evaluates the splits, and draws the report if there are any."""
    results = {}
    for split in splits:
        job.watchdog.enter(f"evaluation of {split}", step)
        job.console.enter(f"evaluating {split}")
        results[split] = evaluate_split(job, state, split)
    if results:
        job.console.enter("drawing the report")
        draw_report(job, state, results)
    return results


def choose(job: Job, step: int) -> tuple[bool, bool]:
    """Whether the state after `step` updates is to be kept as the best, and whether it is the last.

    It is the best if no checkpoint is better: one that was may not have been saved.
    """
    if job.keep_best.metric is None:
        return False, False
    rows, steps = job.writer.history, {*job.checkpointer.steps(), step}
    is_best, enough = broadcast_from_main(
        [best_step(rows, job.keep_best, steps) == step, is_enough(rows, job.keep_best)]
    )
    return bool(is_best), bool(enough)


def say_early_end(job: Job, step: int) -> None:
    """Says why the run ends after `step` updates, and how it goes on."""
    reason = early_end(job.writer.history, job.keep_best, job.schedule.num_train_steps)
    job.console.say(
        f"after {step} steps the run has {reason}; to go on, run again with a larger "
        "--config.keep_best.patience, or 0 for no such end"
    )
    job.console.ends_at(step)


def already_done(job: Job, step: int) -> frozenset[str]:
    """What an earlier process has already done at `step`, for `Schedule.due`."""
    splits, is_over = job.schedule.splits(step), job.schedule.is_over(step)
    written = [job.writer.has(split, step) for split in splits]
    *has, undrawn = broadcast_from_main([*written, job.report.is_missing(step)])
    if is_over and all(has):
        job.console.say(f"nothing is left to do: {step} steps are done and evaluated")
    if undrawn and job.schedule.due(step).eval_splits:  # evaluates again, only for the page
        return frozenset({TRAIN, CHECKPOINT})
    evaluated = (split for split, is_written in zip(splits, has, strict=True) if is_written)
    return frozenset({TRAIN, CHECKPOINT, *evaluated})


def train_to(job: Job, state: TrainState, step: int, end: int) -> TrainState:
    """Runs updates `step` ... `end - 1`. On accelerators this does not wait for the result."""
    job.console.enter("training", f"step {step}/{job.schedule.num_train_steps}")
    is_saving = job.checkpointer.is_saving()
    if job.throughput.is_running(disturbed=not is_saving):
        jax.block_until_ready(state)
        job.throughput.stop()
    with job.throughput.waiting():
        batches = job.loader.train(step, end - step)
    if job.steps.is_compiled(batches):
        job.throughput.start(disturbed=is_saving)
        job.throughput.add(end - step)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            state = job.steps.train(state, batches)
    else:  # compiles, which must not count as training time
        job.watchdog.enter(None, step)
        job.console.enter("compiling the train step")
        job.throughput.stop()
        state, text = job.steps.train_first(state, batches)
        job.console.say(text)
    job.watchdog.asked(end)
    return state


def log_training(job: Job, state: TrainState, num_skipped: int) -> TrainState:
    """Writes a train line; returns the state with its metric sums reset."""
    step, speed = int(state.step), job.throughput.take()
    job.writer.write(
        step,
        "train",
        metrics.compute(state.metrics),
        learning_rate=job.steps.learning_rate(state),
        images_per_second=speed.images_per_second if speed else None,
        steps_per_sec=speed.steps_per_sec if speed else None,
        input_wait_share=speed.input_wait_share if speed else None,
        peak_memory_bytes=_peak_memory_bytes(job.steps.mesh.local_devices),
        skipped_updates=num_skipped,
    )
    if num_skipped:
        kept = keep_batch(job, int(state.nonfinite_step))
        job.console.say(
            f"{num_skipped} updates gave NaN or infinity and were skipped; the batch of the "
            f"last {kept}"
        )
    return dataclasses.replace(state, metrics=replicate(metrics.empty(), job.steps.mesh))


def evaluate_split(job: Job, state: TrainState, split: str) -> EvalResult:
    """Evaluates a split, and writes its line unless it has been written before."""
    result, step = evaluate(job.steps, job.loader, state, split, job.preemption), int(state.step)
    if not job.writer.has(split, step):
        job.writer.write(
            step,
            split,
            result.numbers(),
            learning_rate=job.steps.learning_rate(state),
            images_per_second=result.num_examples / result.seconds,
        )
        options = job.steps.rule.preprocessing
        num_classes = options.num_classes if options.label_sets is None else 2
        is_frozen = job.steps.rule.freeze_batch_norm  # averages, by which training normalises, too
        history = () if is_frozen else job.writer.history
        if history and (text := explain_loss(history, split, num_classes)):
            job.console.say(text)
    return result


def draw_report(job: Job, state: TrainState, results: Mapping[str, EvalResult]) -> None:
    """Draws the report. A failure is printed and does not end the run."""
    if not job.report.draws:
        return
    try:
        page = job.probe.look(state, results)
        job.report.draw(page, job.writer.history)
        if page.seen is not None:
            job.writer.show(page.step, "masks", draw_masks(page.images, page.seen))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        job.console.say(f"{PAGE} could not be drawn ({reason}); the run continues")


def stop_if_nonfinite(job: Job, state: TrainState) -> None:
    """Raises NonfiniteError if the last update gave NaN or infinity and was not skipped."""
    step = int(state.step)
    if int(state.nonfinite_step) != step:
        return
    kept = keep_batch(job, step)
    raise NonfiniteError(
        f"the update after step {step} gave NaN or infinity; its batch {kept}: lower "
        "the learning rate, look at the batch, or continue with --config.on_nonfinite=skip"
    )


def keep_batch(job: Job, step: int) -> str:
    """Writes the batch of update `step`, before augmentation, to a file for debugging.

    It is an .npz file with images, uint8 [B, H, W, 3], and labels, int32 [B]: this process's shard
    of the batch. Of each process the files of the last `_KEPT_BATCHES` such updates are kept.

    Returns:
        Where it is, or why it could not be kept, after "the batch".
    """
    folder, own = job.folder / "nonfinite", f"_of_process_{jax.process_index()}.npz"
    path, content = folder / f"batch_{step}{own}", io.BytesIO()
    try:
        batch = job.loader.host_batch(step)
        np.savez(content, images=batch.images, labels=batch.labels)
        folder.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, content.getvalue())
        files = [file for file in folder.iterdir() if file.name.endswith(own)]
        for file in sorted(files, key=lambda file: int(file.name.split("_")[1]))[:-_KEPT_BATCHES]:
            file.unlink()
    except OSError as error:
        return f"could not be kept in {folder} ({error.strerror or error})"
    return f"is in {path}"


def _peak_memory_bytes(devices: Sequence[jax.Device]) -> int:
    """Peak memory of the fullest device; on CPU, of the process."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in devices]
    if any(peaks):
        return max(peaks)
    return peak_bytes_of_process()
