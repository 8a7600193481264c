"""Makes a folder with everything that a machine without a network needs for the other commands.

wheels/      packages of requirements.lock that images with JAX and PyTorch usually lack
data.tar.xz  a dataset prepared by TFDS; JPEG-coded CIFAR shrinks to 40 % of its size
start/       a run with its initial state, which takes long to compute on slow cores
run.sh       installs and unpacks all of it, and runs a command with its arguments
"""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax

from rattn_jax.config.load import load_config, parse_config
from rattn_jax.config.schema import RunConfig
from rattn_jax.data.catalog import build_dataset, build_spec
from rattn_jax.data.contents import describe_data, read_contents
from rattn_jax.data.epochs import in_steps
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import make_mesh
from rattn_jax.runs.checkpointer import Checkpointer
from rattn_jax.runs.identity import check_same_run, describe_run
from rattn_jax.runs.workdir import open_run_folder
from rattn_jax.training.step_functions import build_steps

_ROOT = Path(__file__).parents[2]
_PYTHON = "3.12"
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)] + [
    "manylinux2014_x86_64"
]
_PACKAGES = frozenset(
    [
        "array-record",
        "clu",
        "dm-tree",
        "docstring-parser",
        "etils",
        "flax",
        "googleapis-common-protos",
        "grain",
        "immutabledict",
        "importlib-resources",
        "ml-collections",
        "optax",
        "orbax-checkpoint",
        "portpicker",
        "promise",
        "protobuf",
        "simple-parsing",
        "simplejpeg",
        "tensorflow-datasets",
        "tensorflow-metadata",
        "termcolor",
        "toml",
    ]
)
# Files of other datasets, which are half of the size of tensorflow-datasets.
_OTHER_DATASETS = re.compile(r"sun397_tfds|url_checksums/|checksums\.tsv|labels.*\.txt$|\.csv$")
_SCRIPT = """\
# From the root of the repository: bash BUNDLE/run.sh check|speed|train ...
set -e
bundle=$(dirname "$0")
site=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$bundle"/wheels/*.whl
python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' \\
    "$bundle/data.tar.xz" "$bundle/data"
export PYTHONPATH="$site:$PWD" PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=2
exec python3 -m experiments.accelerator "$@"
"""


def make_bundle(
    folder: Path, config_name: str, data_dir: str, overrides: Sequence[str] = ()
) -> None:
    """Writes the bundle, in place of one that is there.

    Args:
        folder: folder to write; inside the repository, so that it travels with it.
        config_name: config of the run that will be trained.
        data_dir: folder in which TFDS has prepared its dataset.
        overrides: flags --config.KEY=VALUE of the run.

    Raises:
        UsageError: the config or its data cannot be used, or a package cannot be downloaded.
    """
    flags = [*overrides, f"--config.data_dir={data_dir}"]
    given = parse_config(load_config(config_name, flags))
    source = Path(data_dir) / given.dataset.name
    if not source.is_dir():
        raise UsageError(f"--data-dir={data_dir} has no {given.dataset.name}: prepare it first")
    config = in_steps(given, build_dataset(given))
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("wheels", "start"):
        shutil.rmtree(folder / part, ignore_errors=True)
    _collect_wheels(folder / "wheels")
    with tarfile.open(folder / "data.tar.xz", "w:xz") as archive:
        archive.add(source, arcname=source.name)
    _write_start(folder / "start", config)
    (folder / "run.sh").write_text(_SCRIPT)


def _collect_wheels(folder: Path) -> None:
    lines = (_ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.partition(" ")[0] for line in lines if "python_full_version < '3.12'" not in line]
    wanted = [pin for pin in pins if pin.partition("==")[0] in _PACKAGES]
    pip = [sys.executable, "-m", "pip", "-q"]
    to = ["--no-deps", f"--python-version={_PYTHON}", "--only-binary=:all:", "-d", str(folder)]
    to += [f"--platform={platform}" for platform in _PLATFORMS]
    for pin in wanted:
        command = [*pip, "download", *to, pin]
        if pin.startswith("promise=="):  # has no wheel
            command = [*pip, "wheel", "--no-deps", "-w", str(folder), pin]
        if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
            raise UsageError(
                f"pip finds no {pin} for Python {_PYTHON} on Linux: is it in the lock?"
            )
    (datasets,) = folder.glob("tensorflow_datasets-*.whl")
    _leave_out_other_datasets(datasets)


def _leave_out_other_datasets(wheel: Path) -> None:
    smaller = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            if not _OTHER_DATASETS.search(item.filename):
                new.writestr(item, old.read(item.filename))
    smaller.replace(wheel)


def _write_start(folder: Path, config: RunConfig) -> None:
    """Writes a run's folder with a checkpoint of the state before the first update."""
    devices = jax.devices("cpu")[:1]
    steps = build_steps(config, build_spec(config), make_mesh(devices))
    dataset = build_dataset(config)
    data = describe_data(config, dataset, read_contents(dataset))
    run = describe_run(config.to_dict(), data)
    checkpoints = open_run_folder(folder, config.to_dict()) / "checkpoints"
    with Checkpointer(checkpoints, 1, record=run, compare=check_same_run) as checkpointer:
        checkpointer.save(steps.initial_state())
