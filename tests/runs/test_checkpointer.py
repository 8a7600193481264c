import asyncio
import dataclasses
import importlib
import json
import shutil
from contextlib import closing
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from etils.epath.gpath import PosixGPath
from flax.serialization import to_state_dict

from rattn_jax.errors import DataError, SaveError, UsageError
from rattn_jax.runs import checkpoint_files, whole_reads
from rattn_jax.runs.checkpoint_files import all_steps, read_checkpoint, read_newest, try_to_read
from rattn_jax.runs.checkpointer import Checkpointer
from rattn_jax.runs.files import LocalPath
from tests.tiny import at_step, make_state

GOLDEN = Path(__file__).parent / "golden_checkpoint.tar.xz"


@pytest.fixture(scope="module")
def state():
    return make_state()


def all_saved(directory):
    return sorted(path.name for path in directory.iterdir())


def numbered(state):
    """The state after 7 updates, with arrays that each hold a number of their own."""
    leaves, tree = jax.tree.flatten(state)
    numbers = [jnp.full_like(leaf, number) for number, leaf in enumerate(leaves)]
    return at_step(jax.tree.unflatten(tree, numbers), 7)


def test_checkpoint_of_an_earlier_version_is_restored(state, tmp_path):
    """`Checkpointer.save(numbered(make_state()))` has written it, with Orbax 0.12.8."""
    shutil.unpack_archive(GOLDEN, tmp_path / "checkpoints", filter="data")
    with Checkpointer(tmp_path / "checkpoints", keep=1, record={"config": {}}) as checkpoints:
        restored = checkpoints.restore_latest(state)
    jax.tree.map(np.testing.assert_array_equal, restored, numbered(state))


# It reads where each array was from the checkpoint, and says that this takes a moment longer.
@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_checkpoint_is_read_by_the_orbax_to_come(state, tmp_path):
    try:
        v1 = importlib.import_module("orbax.checkpoint.v1")
    except ImportError:  # before 1.0
        v1 = importlib.import_module("orbax.checkpoint.experimental.v1")
    shutil.unpack_archive(GOLDEN, tmp_path, filter="data")
    found = v1.load(tmp_path / "7", checkpointable_name="state")
    expected = to_state_dict(numbered(state))
    jax.tree.map(np.testing.assert_array_equal, found, expected, is_leaf=lambda x: x is None)


def test_newest_is_restored(state, tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        assert checkpoints.restore_latest(state) is None
        for step in (1, 2, 3):
            checkpoints.save(at_step(state, step))
    assert all_saved(tmp_path) == ["2", "3"]
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        restored = checkpoints.restore_latest(state)
    jax.tree.map(np.testing.assert_array_equal, restored, at_step(state, 3))


@pytest.mark.parametrize("name", ["[exp1] lr=0.1", "a*b?{c,d}", "[!a]"])
def test_every_character_of_a_path_means_itself(state, tmp_path, name):
    with Checkpointer(tmp_path / name, keep=2) as checkpoints:
        checkpoints.save(at_step(state, 1))
    assert read_newest(str(tmp_path / name), pytest.fail)[0] == 1
    with Checkpointer(tmp_path / name, keep=2) as checkpoints:
        restored = checkpoints.restore_latest(state)
    jax.tree.map(np.testing.assert_array_equal, restored, at_step(state, 1))


# Reads of the other arrays end after that of the first one has failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_first_checkpoint_is_read_back_before_it_counts(state, tmp_path, monkeypatch):
    with Checkpointer(tmp_path / "[x]", keep=1) as checkpoints:
        checkpoints.save(at_step(state, 1))
    monkeypatch.setattr(LocalPath, "glob", PosixGPath.glob)  # Orbax then writes half of it
    message = "checkpoint .*/2 is damaged .*, though it has just been written: choose a workdir on"
    with pytest.raises(SaveError, match=message) as caught:
        Checkpointer(tmp_path / "[x]", keep=1).save(at_step(state, 2))
    assert "\n" not in str(caught.value)
    assert all_saved(tmp_path / "[x]") == ["1", "damaged-2"], "what was saved before stays"
    said = []
    later = Checkpointer(tmp_path / "[x]", keep=1, stop_on_error=False, say=said.append)
    later.save(at_step(state, 3))
    assert "/3 is damaged" in said[-1]
    with pytest.raises(SaveError, match="/3 is damaged"):
        later.__exit__(None, None, None)
    assert all_saved(tmp_path / "[x]") == ["1", "damaged-2", "damaged-3"]


def test_step_that_is_saved_already_is_not_saved_again(state, tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        for _ in range(2):
            checkpoints.save(at_step(state, 1))
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        checkpoints.save(checkpoints.restore_latest(state))


@pytest.mark.parametrize("name", ["7.orbax-checkpoint-tmp", "removing-7"])
def test_leftovers_of_a_killed_process_are_removed(state, tmp_path, name):
    leftover = tmp_path / name
    leftover.mkdir()
    (leftover / "part").write_text("half")
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        assert checkpoints.restore_latest(state) is None
    assert not leftover.exists()


def test_leftovers_of_a_failed_save_are_removed_once_its_threads_have_ended(
    state, tmp_path, monkeypatch
):
    def fail():
        raise OSError(28, "No space left on device")

    def remove_leftovers():
        happened.append("removed")
        raise OSError(39, "Directory not empty")

    happened, said = [], []
    checkpoints = Checkpointer(tmp_path, keep=2, stop_on_error=False, say=said.append)
    checkpoints.save(at_step(state, 1))
    checkpoints.save(at_step(state, 2))
    writer = checkpoints._checkpointer
    wait = writer.wait_until_finished
    monkeypatch.setattr(writer, "check_for_errors", fail)
    monkeypatch.setattr(writer, "wait_until_finished", lambda: (happened.append("waited"), wait()))
    monkeypatch.setattr(checkpoints, "_remove_leftovers", remove_leftovers)
    checkpoints.check()
    assert happened == ["waited", "removed"]
    assert "the run continues" in said[0]
    with pytest.raises(SaveError, match="step 2 could not be written"):
        checkpoints.__exit__(None, None, None)


def test_checkpoint_with_other_arrays_is_refused(state, tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        checkpoints.save(at_step(state, 1))
    other = dataclasses.replace(state, num_nonfinite=jnp.zeros((2,)))
    message = r"has num_nonfinite=int32\[\], and this config needs float32\[2\]: use another"
    with (
        Checkpointer(tmp_path, keep=2) as checkpoints,
        pytest.raises(UsageError, match=message),
    ):
        checkpoints.restore_latest(other)


def test_reading_changes_nothing(state, tmp_path):
    with Checkpointer(tmp_path, keep=2, record={"config": 1}) as checkpoints:
        checkpoints.save(at_step(state, 4))
    (tmp_path / "5.orbax-checkpoint-tmp").mkdir()
    assert all_steps(tmp_path) == [4]
    tree, record = read_checkpoint(tmp_path / "4")
    assert tree["step"] == 4
    assert record == {"config": 1}
    assert read_newest(tmp_path, print)[0] == 4
    assert all_saved(tmp_path) == ["4", "5.orbax-checkpoint-tmp"]


def test_newest_whole_one_is_read(state, tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        for step in (4, 6):
            checkpoints.save(at_step(state, step))
    said = []
    (tmp_path / "6/record/metadata").unlink()
    assert read_newest(tmp_path, said.append)[0] == 4
    assert said[0].startswith(f"checkpoint {tmp_path}/6 is damaged (")
    (tmp_path / "4/record/metadata").unlink()
    with pytest.raises(DataError, match=r"no checkpoint in .* can be read, 2 are damaged"):
        read_newest(tmp_path, said.append)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*none"):
        read_newest(tmp_path / "none", said.append)


def test_a_save_that_cannot_begin_is_reported(state, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no such device")

    checkpoints = Checkpointer(tmp_path, keep=2)
    monkeypatch.setattr("orbax.checkpoint.AsyncCheckpointer.save", refuse)
    with pytest.raises(SaveError, match="no such device"), checkpoints:
        checkpoints.save(at_step(state, 4))
    assert all_saved(tmp_path) == []


def test_the_last_save_is_tried_again_and_its_failure_raises(state, tmp_path, monkeypatch):
    checkpoints = Checkpointer(tmp_path, keep=1, stop_on_error=False, say=lambda text: None)
    with monkeypatch.context() as patches:
        patches.setattr("orbax.checkpoint.AsyncCheckpointer.save", lambda *_, **__: 1 / 0)
        checkpoints.save(at_step(state, 4))
        with pytest.raises(SaveError, match="the checkpoint of step 4 could not be written"):
            checkpoints.save_at_last(at_step(state, 4))
    checkpoints.save_at_last(at_step(state, 4))
    assert all_saved(tmp_path) == ["4"]
    checkpoints.__exit__(None, None, None)


def test_the_best_of_those_that_are_saved_is_kept(state, tmp_path, monkeypatch):
    losses = {4: 0.4, 6: 0.3, 7: 0.2, 8: 0.6, 9: 0.5}
    with Checkpointer(tmp_path, keep=1, stop_on_error=False, say=lambda text: None) as checkpoints:
        checkpoints.best_of = partial(min, key=losses.get)
        for step in (4, 6):
            checkpoints.save(at_step(state, step))
            assert checkpoints.steps() == {4, step}
        with monkeypatch.context() as patches:
            patches.setattr("orbax.checkpoint.AsyncCheckpointer.save", lambda *_, **__: 1 / 0)
            checkpoints.save(at_step(state, 7))
        for step in (8, 9):
            checkpoints.save(at_step(state, step))
    assert all_saved(tmp_path) == ["6", "9"]


def test_what_cannot_be_removed_ends_no_run(state, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(39, "Directory not empty")

    said = []
    with monkeypatch.context() as patches:
        patches.setattr(LocalPath, "rmtree", refuse)
        with Checkpointer(tmp_path, keep=1, say=said.append) as checkpoints:
            for step in (4, 6):
                checkpoints.save(at_step(state, step))
        (line,) = said
        assert line.startswith("checkpoint 4 cannot be removed ([Errno 39] Directory not empty): ")
        assert line.endswith(f"remove {tmp_path}/removing-4")
        Checkpointer(tmp_path, keep=1, say=said.append)
        assert said[1].startswith(f"leftovers in {tmp_path} cannot be removed (")
    with Checkpointer(tmp_path, keep=1, say=said.append) as checkpoints:
        assert all_saved(tmp_path) == ["6"]
        with monkeypatch.context() as patches:
            patches.setattr(checkpoints, "_superfluous", lambda: [6])
            patches.setattr(LocalPath, "rename", refuse)
            checkpoints._remove(6)
            checkpoints._remove(6)
    assert len(said) == 3
    assert said[2].endswith(f"remove {tmp_path}/6")


def test_what_is_damaged_again_takes_the_place_of_before(state, tmp_path):
    for _ in range(2):
        with Checkpointer(tmp_path, keep=2) as checkpoints:
            checkpoints.restore_latest(state)
            for step in (4, 6):
                checkpoints.save(at_step(state, step))
        (tmp_path / "6/record/metadata").unlink()
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        assert int(checkpoints.restore_latest(state).step) == 4
    assert all_saved(tmp_path) == ["4", "damaged-6"]


def test_a_failed_read_ends_when_all_that_it_began_has_ended():
    ended = []

    async def fail():
        raise ValueError("damaged")

    async def read():
        await asyncio.sleep(0.01)
        ended.append(True)

    async def read_all():
        await asyncio.gather(fail(), read(), read())

    loop = asyncio.new_event_loop()
    with closing(loop), pytest.raises(ValueError, match="damaged"):
        loop.run_until_complete(whole_reads.to_the_end(read_all()))
    assert ended == [True, True]


@pytest.mark.parametrize("files", ["d/*", "ocdbt.process_0/d/*"])
def test_damaged_arrays_are_read_so(state, tmp_path, monkeypatch, files):
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        checkpoints.save(at_step(state, 2))
    for file in (tmp_path / "2/state").glob(files):
        file.write_bytes(b"")
    failed, real = [], whole_reads.to_the_end

    async def watched(reading):
        try:
            return await real(reading)
        except ValueError as error:
            failed.append(error)
            raise

    monkeypatch.setattr(whole_reads, "to_the_end", watched)
    assert "is damaged (OUT_OF_RANGE: " in try_to_read(epath.Path(tmp_path / "2"))
    assert len(failed) == 1


def test_numbers_that_have_changed_are_damage(state, tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        checkpoints.save(at_step(state, 2))
    record = tmp_path / "2/record/metadata"
    saved = json.loads(record.read_text())
    first, *_ = saved["checksums"]
    saved["checksums"][first] += 1
    record.write_text(json.dumps(saved))
    assert try_to_read(epath.Path(tmp_path / "2")) == (
        f"checkpoint {tmp_path}/2 is damaged (checksums differ: {first})"
    )
    del saved["checksums"][first]
    record.write_text(json.dumps(saved))
    assert "checksums differ: arrays were added" in try_to_read(epath.Path(tmp_path / "2"))


def looped(path):
    """Makes a file one that the system refuses to open; also for root."""
    path.unlink()
    path.symlink_to(path.name)


def of_first_array(folder):
    return next((folder / "state/d").iterdir())


@pytest.mark.parametrize("file", [lambda folder: folder / "record/metadata", of_first_array])
def test_an_error_of_the_disk_is_no_damage(state, tmp_path, file):
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        for step in (4, 6):
            checkpoints.save(at_step(state, step))
    looped(file(tmp_path / "6"))
    message = r"checkpoint .*/6 could not be read \(.*\), and may be whole: try again"
    for read in (
        lambda: Checkpointer(tmp_path, keep=2).restore_latest(state),
        lambda: read_newest(tmp_path, pytest.fail),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert all_saved(tmp_path) == ["4", "6"]


def test_want_of_memory_is_no_damage(state, tmp_path, monkeypatch):
    def read(path):
        raise MemoryError

    checkpoints = Checkpointer(tmp_path, keep=1)
    monkeypatch.setattr(checkpoint_files, "read_checkpoint", read)
    message = r"/4 could not be read \(MemoryError\), and may be whole: try again"
    with pytest.raises(SaveError, match=message):
        checkpoints.save(at_step(state, 4))
    with pytest.raises(DataError, match=message):
        checkpoints.restore_latest(state)
    assert all_saved(tmp_path) == ["4"]


def test_what_a_run_removes_while_it_is_read_is_not_damaged(state, tmp_path, monkeypatch):
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        for step in (4, 6):
            checkpoints.save(at_step(state, step))
    (tmp_path / "6").rename(tmp_path / "later")

    def read_late(path):
        if path.name == "4":
            shutil.rmtree(path)
            (tmp_path / "later").rename(tmp_path / "6")
        return read_checkpoint(path)

    monkeypatch.setattr(checkpoint_files, "read_checkpoint", read_late)
    assert read_newest(tmp_path, pytest.fail)[0] == 6
