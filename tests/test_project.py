"""What the project says of itself in several places."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = r"\b3\.\d\d\b"


def test_supported_pythons_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classified = [re.search(rf":: ({PYTHON})$", line) for line in project["classifiers"]]
    supported = [match[1] for match in classified if match]
    assert project["requires-python"] == f">={supported[0]}"
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert re.findall(PYTHON, re.search(r"python: \[(.*)\]", workflow)[1]) == supported
    (sentence,) = re.findall(r"Needs Python .*?,", (ROOT / "README.md").read_text())
    assert re.findall(PYTHON, sentence) == [supported[0], supported[-1]]
