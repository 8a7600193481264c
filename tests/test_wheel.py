"""What is installed from a wheel, as seen from a folder that is not the repository's.

`make dist` does the same in an empty environment, for which it downloads the libraries.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rattn_jax.config.load import shipped_configs
from tests.compare import read_rows
from tests.forks import ENVIRONMENT, ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with what the wheel installs, and nothing else."""
    pytest.importorskip("setuptools", reason="builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # where setuptools may leave its files
    everywhere = shutil.ignore_patterns(".*", "*.egg-info")
    at_root = shutil.ignore_patterns("build", "dist", "runs")

    def ignored(place, names):
        return everywhere(place, names) | (at_root(place, names) if Path(place) == ROOT else set())

    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", f"--target={folder}/site", wheel], check=True)
    return folder / "site"


def rattn(site, folder, *arguments):
    """Exit status, standard output and error of the installed command."""
    done = subprocess.run(
        [sys.executable, site / "bin/rattn", *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_wheel_trains_with_a_config_that_it_has(site, tmp_path):
    listed = {path.stem for path in (site / "rattn_jax/configs").glob("*.py")} - {"__init__"}
    assert listed == shipped_configs().keys()
    assert not any((site / "rattn_jax/configs").glob("*/*.py"))
    modules = {path.relative_to(ROOT) for path in (ROOT / "rattn_jax").rglob("*.py")}
    assert {path.relative_to(site) for path in (site / "rattn_jax").rglob("*.py")} >= modules
    (tmp_path / "mine.py").write_text(
        "from rattn_jax.configs import digits\n"
        "def get_config():\n"
        "    config = digits.get_config()\n"
        "    config.num_train_steps = 1\n"
        "    return config\n"
    )
    status, _, err = rattn(site, tmp_path, "train", "--config=mine.py", "--workdir=run")
    assert (status, err) == (0, "")
    assert read_rows(tmp_path / "run")[-1]["split"] == "test"
    assert (tmp_path / "run/report.html").exists(), "its templates are in the wheel"
    where = "import rattn_jax; print(rattn_jax.__file__)"
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-c", where]
    out = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert Path(out.strip()).is_relative_to(site)
