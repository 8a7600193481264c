"""The documentation: links, the page of all keys, and that every name in it is one.

What runs the commands and the Python is in test_page_commands.py.
"""

import json
import re
import runpy
import tomllib

import pytest

import rattn_jax
from rattn_jax import cli
from rattn_jax.config.load import flatten, load_config, parse_config
from rattn_jax.configs import default
from rattn_jax.runs.pretrained import find_folder
from tests.networks import CIFAR_PARAMETERS
from tests.pages import PAGES, ROOT, commands
from tests.test_cli import PROGRAMS

TEXT = {page.name: page.read_text() for page in PAGES}


class Parsed(BaseException):
    """The arguments are understood."""


@pytest.fixture
def only_parse(monkeypatch):
    """Programs end when they have parsed their arguments."""
    for name in ("parse", "parse_with_overrides"):
        parse = getattr(cli.Parser, name)

        def parse_and_end(self, arguments, parse=parse):
            raise Parsed(parse(self, arguments))

        monkeypatch.setattr(cli.Parser, name, parse_and_end)


def test_there_are_commands():
    assert len(commands()) > 40


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.line)
def test_commands_are_understood(only_parse, command):
    if "--help" in command.arguments:
        return
    with pytest.raises(Parsed) as parsed:
        PROGRAMS[command.program](command.arguments)
    (result,) = parsed.value.args
    options, overrides = result if isinstance(result, tuple) else (result, [])
    if getattr(options, "config", None):
        if data := getattr(options, "data", None):
            overrides = [*overrides, f"--config.dataset.name=folder:{data}"]
        parse_config(load_config(options.config, overrides))


def named(pattern):
    """What the pages name so."""
    return {name for text in TEXT.values() for name in re.findall(pattern, text, re.MULTILINE)}


def test_every_flag_is_one_of_a_program(capsys):
    for main in PROGRAMS.values():
        with pytest.raises(SystemExit):
            main(["--help"])
    others = {"--data-binary", "--logdir", "--file_format", "--xla_gpu_enable_triton_gemm"}
    known = {*re.findall(r"--[a-z][\w-]*", capsys.readouterr().out)} | others
    assert named(r"(?<![\w-])--[a-z][\w-]*(?![\w.-])") - known == set()


def test_every_key_is_one_of_the_config():
    known = flatten(default.get_config().to_dict())
    assert named(r"--config\.([a-z]\w*(?:\.\w+)*)") - {*known} == set()


def test_every_extra_and_target_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = ",".join(named(r"pip install -e '\.\[([\w,]+)\]'")).split(",")
    assert {*extras} - {*project["optional-dependencies"]} == set()
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named(r"(?:`|^    )make ([\w-]+)") - {*targets} == set()


@pytest.mark.parametrize("page", ["README.md", "deployment.md"])
def test_figures_of_networks_are_those_of_their_records(page):
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", TEXT[page], re.MULTILINE))
    for name in rattn_jax.list_pretrained():
        found = json.loads((find_folder(name) / "config.json").read_text())["evaluation"]
        error, low, high = (100 * found[key] for key in ("error_top1", "low", "high"))
        assert f"{error:.2f} % ({low:.2f} to {high:.2f}), {found['num_examples']:,}" in rows[name]


def test_parameters_of_the_readme_are_those_of_the_networks():
    rows = dict(re.findall(r"^\| `(\w+_cifar)` \| ([\d,]+) \|", TEXT["README.md"], re.MULTILINE))
    assert len(rows) == 6
    for name, parameters in rows.items():
        assert f"{CIFAR_PARAMETERS[name][0]:,}" == parameters


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT[page.name])
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_page_of_all_keys_is_that_of_the_config():
    written = runpy.run_path(str(ROOT / "docs/make_configuration.py"))["configuration"]()
    assert TEXT["configuration.md"] == written
