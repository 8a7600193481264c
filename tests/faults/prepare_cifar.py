"""Prepares a small CIFAR-10: python -m tests.faults.prepare_cifar DATA_DIR."""

import sys
from pathlib import Path

import pytest

from tests.data.cifar_archives import cifar_archive
from tests.data.images import load_dataset

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    archive = cifar_archive("cifar10", pytest.MonkeyPatch())
    if not (folder / "downloads").exists():
        archive.put(folder / "downloads")
    print("ready", flush=True)
    archive.check(load_dataset("cifar10", str(folder)))
