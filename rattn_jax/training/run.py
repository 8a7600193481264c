"""A run from its config to its end: what is opened, checked and restored before the loop."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial

import jax
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict

from rattn_jax.config.load import parse_config
from rattn_jax.config.schema import RunConfig
from rattn_jax.data.catalog import build_dataset
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import is_main_process, replicate
from rattn_jax.parallel.preemption import StopSignals
from rattn_jax.report.page import PAGE
from rattn_jax.runs.checkpoint_files import saved_steps
from rattn_jax.runs.checkpointer import Checkpoints
from rattn_jax.runs.console import Progress
from rattn_jax.runs.files import replace_text
from rattn_jax.runs.metrics_log import Recorder
from rattn_jax.runs.workdir import check_same_run, lock_run_folder, open_run_folder, record_run
from rattn_jax.training.compilation import use_cache
from rattn_jax.training.init_from import open_source
from rattn_jax.training.loop import Run
from rattn_jax.training.state import TrainState
from rattn_jax.training.step_functions import Trainer


def train_and_evaluate(
    config: ConfigDict, workdir: epath.PathLike, devices: Sequence[jax.Device] | None = None
) -> TrainState:
    """Trains and evaluates, going on from the newest whole checkpoint in `workdir`.

    Args:
        config: the keys of `configs/default.py`.
        workdir: the run's folder.
        devices: devices to use; None takes all.

    Returns:
        The final state, whole on every device.

    Raises:
        UsageError: the config, the data or the folder cannot be used.
        DataError: all checkpoints, or too many examples, are damaged.
        SaveError: a checkpoint or metrics could not be written.
        NonfiniteError: an update gave NaN or infinity.
        StoppedError: SIGTERM or Ctrl-C has ended the run, after saving.
    """
    return _train_and_evaluate(
        parse_config(config), workdir, jax.devices() if devices is None else devices
    )


def _train_and_evaluate(
    config: RunConfig, workdir: epath.PathLike, devices: Sequence[jax.Device]
) -> TrainState:
    progress = Progress(config.num_train_steps, config.batch_size, quiet=not is_main_process())
    trainer = Trainer(config, devices, progress)
    folder = open_run_folder(workdir, config.to_dict())
    stop_on_error = config.on_save_error == "stop"
    with StopSignals(config.preemption_grace_seconds) as stop, lock_run_folder(folder):
        # What cannot be done is refused before the folder is this run's.
        target = trainer.abstract_state()
        has_begun = bool(saved_steps(folder / "checkpoints"))
        source = None if has_begun else open_source(config, trainer.model)
        dataset = build_dataset(config)
        record = record_run(folder, config.to_dict(), devices, dataset.describe())
        use_cache(config.compilation_cache_dir or folder / "compilation_cache")
        trainer.place(dataset)
        trainer.record_inputs(folder)

        progress.say(f"{config.model.name} on {config.dataset.name}, in {folder}")
        table = partial(
            parameter_overview.get_parameter_overview, target.params, include_stats=False
        )
        if is_main_process():
            replace_text(folder / "parameters.txt", table() + "\n")
        progress.say(table(max_lines=12))
        with (
            closing(trainer.loader),
            Checkpoints(
                folder / "checkpoints",
                config.keep_checkpoints,
                record=record,
                compare=check_same_run,
                say=progress.say,
                stop_on_error=stop_on_error,
            ) as checkpoints,
        ):
            restored = checkpoints.restore_newest(target)
            if restored is not None:
                progress.say(f"going on from the checkpoint of step {int(restored.step)}")
                state = replicate(trainer.arrange(restored), trainer.mesh)
            elif config.num_train_steps == 0:
                raise UsageError(
                    f"num_train_steps=0 evaluates the newest checkpoint, and {folder} has none: "
                    "train first, or choose another workdir"
                )
            else:
                state = trainer.start(source, dataset.class_names)
            with Recorder(
                folder, int(state.step), progress, stop_on_error=stop_on_error
            ) as recorder:
                report = trainer.report(folder, int(state.step))
                run = Run(folder, trainer, checkpoints, recorder, report, stop, progress)
                state = run.to_the_end(state)
                _say_result(recorder, progress, folder)
    return state


def _say_result(recorder: Recorder, progress: Progress, folder: epath.Path) -> None:
    row = recorder.newest("test")
    if row is None:
        return
    page = f"  report       {folder / PAGE}\n" if (folder / PAGE).exists() else ""
    progress.say(
        f"test error {100 * row['error_top1']:.2f} % after {row['step']} steps\n"
        f"{page}"
        f"  numbers      {folder / 'metrics.jsonl'}\n"
        f"  curves       tensorboard --logdir {folder / 'tensorboard'}\n"
        f"  checkpoints  {folder / 'checkpoints'}"
    )
