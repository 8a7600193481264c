"""The lock of a run's folder."""

import errno
import fcntl

import pytest
from etils import epath

from rattn_jax.errors import UsageError
from rattn_jax.runs.files import LocalPath
from rattn_jax.runs.lock import lock_run_folder


def test_a_second_process_is_refused(tmp_path):
    folder, said = epath.Path(tmp_path), []
    with (
        lock_run_folder(folder, said.append),
        pytest.raises(UsageError, match="is in use by another process"),
        lock_run_folder(folder, said.append),
    ):
        pass
    with lock_run_folder(folder, said.append):  # it ends with the block
        assert not said


def test_a_lock_of_another_machine(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EACCES, "permission denied")  # as some network file systems say it

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(UsageError, match="is in use by another process"),
        lock_run_folder(epath.Path(tmp_path), print),
    ):
        pass


def test_a_lock_of_another_user(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(LocalPath, "open", refuse)
    message = (
        r"\.lock cannot be opened \(Permission denied\): if no other user trains there, remove"
    )
    with (
        pytest.raises(UsageError, match=message),
        lock_run_folder(LocalPath(tmp_path), print),
    ):
        pass


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_named_and_trained_on(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    said = []
    with lock_run_folder(epath.Path(tmp_path), said.append):
        pass
    (line,) = said
    assert line.startswith(f"the file system of {tmp_path} has no locks (no locks available)")


def test_other_errors_of_the_lock_are_not_hidden(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(OSError, match="input/output error"),
        lock_run_folder(epath.Path(tmp_path), print),
    ):
        pass
