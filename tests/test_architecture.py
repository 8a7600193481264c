"""The arrows of CONTRIBUTING.md and docs/architecture.md, compared with the imports."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rattn_jax"
# `configs` is a link to a folder that is of no room.
ROOMS = {
    path.name
    for path in PACKAGE.iterdir()
    if (path / "__init__.py").exists() and not path.is_symlink()
}
SOURCES = [*PACKAGE.rglob("*.py"), ROOT / "main.py", *(ROOT / "experiments").rglob("*.py")]


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in SOURCES}


def room_of(module):
    top, _, rest = module.partition(".")
    room = rest.split(".")[0]
    if top != "rattn_jax":
        return top
    return room if room in ROOMS | {"errors"} else "commands"


def imports(path):
    """The modules of the project that a file imports, at its top or inside of functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


GRAPH = {module: set(imports(path)) - {module} for module, path in MODULES.items()}
ARROWS = {
    (room_of(module), room_of(other))
    for module, others in GRAPH.items()
    for other in others
    if room_of(module) != room_of(other)
}


def test_imports_follow_the_layers_of_contributing():
    (line,) = re.findall(r"^    (errors <- .*)$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    layers = [re.split(r" \| |, ", layer) for layer in line.split(" <- ")]
    rank = {room: i for i, layer in enumerate(layers) for room in layer}
    assert not rank.keys() ^ (ROOMS | {"errors", "commands", "main", "experiments"})
    wrong = {(importer, room) for importer, room in ARROWS if rank[importer] <= rank[room]}
    assert not wrong


def test_no_module_imports_itself_over_others():
    list(TopologicalSorter(GRAPH).static_order())  # raises CycleError, which names the modules


def test_configs_are_of_no_room():
    for path in (ROOT / "configs").glob("*.py"):
        assert not list(imports(path)), path


def test_diagram_shows_the_imports():
    text = (ROOT / "docs/architecture.md").read_text()
    diagram = text.split("```mermaid")[1].split("```")[0]
    drawn = set(re.findall(r'^ +(\w+)(?:\[".*"\])? --> (\w+)$', diagram, re.M))
    assert len(drawn) == diagram.count("-->")
    assert not drawn - ARROWS
    reached = set(drawn)
    while more := {(a, d) for a, b in reached for c, d in drawn if b == c} - reached:
        reached |= more
    assert not ARROWS - reached


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_are_named_exist(page):
    named = set(re.findall(r"(?<![\w/])(?:\w+/)+\w+\.py\b", (ROOT / page).read_text()))
    assert named
    assert not {name for name in named if not any((d / name).exists() for d in (ROOT, PACKAGE))}
