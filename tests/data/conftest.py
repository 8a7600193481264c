"""What all tests of data share."""

import tempfile

import pytest

from tests.data.cifar_archives import cifar_archive


@pytest.fixture(autouse=True)
def _temporary_files(tmp_path_factory, monkeypatch):
    """TFDS leaves an empty temporary folder behind for each builder of unprepared data."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


@pytest.fixture
def cifar10_archive(monkeypatch):
    return cifar_archive("cifar10", monkeypatch)


@pytest.fixture(params=["cifar10", "cifar100"])
def archive(request, monkeypatch):
    return cifar_archive(request.param, monkeypatch)
