"""How files are replaced."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from etils import epath

from rattn_jax.runs.files import replace_text, replacing


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_file_has_its_old_content_until_all_is_written(tmp_path):
    path = epath.Path(tmp_path / "file")
    replace_text(path, "before")
    with replacing(path) as stream:
        stream.write(b"after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"

    def write_half():
        with replacing(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "after"
    assert names(tmp_path) == ["file"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/link")
    (tmp_path / "far" / "link").symlink_to("file")  # which does not exist yet
    for text in ("first", "second"):
        replace_text(epath.Path(tmp_path / "link"), text)
        assert (tmp_path / "far" / "file").read_text() == text
    assert (tmp_path / "link").is_symlink()
    assert (names(tmp_path), names(tmp_path / "far")) == (["far", "link"], ["file", "link"])
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="symbolic links"):
        replace_text(epath.Path(tmp_path / "circle"), "")


def test_a_pipe_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit((tmp_path / "pipe").read_text)
            replace_text(epath.Path(tmp_path / name), "text")
            assert found.result(timeout=20) == "text"
        assert (tmp_path / "pipe").is_fifo()
    assert names(tmp_path) == ["link", "pipe"]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_text(epath.Path(tmp_path / "folder"), "")
    assert names(tmp_path) == ["folder"]
