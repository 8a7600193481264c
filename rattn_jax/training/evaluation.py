"""Evaluates a split, each example once: errors, confusions, calibration, confident mistakes."""

import dataclasses
import time
from collections.abc import Mapping
from contextlib import closing

import jax
import numpy as np

from rattn_jax.data.loaders import Loader
from rattn_jax.parallel.preemption import PreemptionGuard
from rattn_jax.report.mistakes import Mistakes
from rattn_jax.report.scores import Calibration, class_scores
from rattn_jax.training import metrics, multi_label
from rattn_jax.training.state import TrainState
from rattn_jax.training.step_functions import StepFunctions


@dataclasses.dataclass(frozen=True, eq=False)
class EvalResult:
    """Result of an evaluation, on the host.

    Attributes:
        num_examples: number of evaluated examples, without padding.
        averages: averages over them: "loss" in nats, "error_top1" and "error_top5" as fractions;
            with the sigmoid loss also those of `multi_label.measure`.
        confusion: examples by true and predicted class, int32 [K, K]; see `EvalSums`.
        calibration: see `Calibration`.
        mistakes: the most confident ones, arrays of equal length, `NUM_MISTAKES` at most.
        seconds: duration of the evaluation, without compiling.
    """

    num_examples: int
    averages: Mapping[str, float]
    confusion: np.ndarray
    calibration: Calibration
    mistakes: Mistakes
    seconds: float

    def numbers(self) -> dict[str, float]:
        """The averages, "balanced_accuracy" and "ece", the expected calibration error.

        The balanced accuracy is NaN if confusions are not counted.
        """
        balanced = class_scores(self.confusion).balanced_accuracy()
        return {**self.averages, "balanced_accuracy": balanced, "ece": self.calibration.error()}


def evaluate(
    steps: StepFunctions,
    loader: Loader,
    state: TrainState,
    split: str,
    preemption: PreemptionGuard,
) -> EvalResult:
    """Evaluates a split.

    Args:
        steps: the compiled functions.
        loader: source of the examples.
        state: state to evaluate.
        split: name of the split.
        preemption: checked before each call of the compiled step.

    Raises:
        Preempted: a signal has arrived; there is no result then.
        DataError: an example cannot be evaluated.
    """
    start, compiling = time.perf_counter(), steps.eval_compile_seconds
    sums, scored = steps.empty_sums(), []
    with closing(loader.eval(split)) as batches:
        for batch in batches:
            preemption.check()
            sums, scores = multi_label.split(steps.evaluate(state, sums, batch))
            scored += scores
    counted, num_examples = metrics.count_examples(sums.metrics), loader.num_examples(split)
    if counted != num_examples:
        raise RuntimeError(f"evaluated {counted} of {num_examples} {split} examples")
    seconds = time.perf_counter() - start - (steps.eval_compile_seconds - compiling)
    confusion, calibration, mistakes = jax.device_get(
        (sums.confusion, sums.calibration, sums.mistakes)
    )
    used = mistakes.probability >= 0
    return EvalResult(
        num_examples,
        metrics.compute(sums.metrics) | multi_label.measure(scored),
        confusion,
        calibration,
        Mistakes(*(values[used] for values in mistakes)),
        seconds,
    )
