"""What the project says of itself in several places."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from rattn_jax import __version__

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


def test_the_newest_section_of_the_changelog_is_that_of_the_version():
    coming, newest, *_ = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert coming == "Unreleased"
    version, _, day = newest.partition(" - ")
    assert version == __version__
    assert re.fullmatch(r"Unreleased|\d{4}-\d\d-\d\d", day)


@pytest.mark.parametrize("folder", ["rattn_jax", "experiments", "docs"])
def test_functions_fit_on_a_page(folder):
    for file in ROOT.joinpath(folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{file.relative_to(ROOT)}: {node.name}"
                assert node.end_lineno - node.lineno < 60, place
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                parameters = [a for a in given if a.arg not in ("self", "cls")]
                assert len(parameters) <= 8, place
