"""The documentation: links, the page of all keys, and every command in it."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from rattn_jax import cli
from rattn_jax.config.load import load_config, parse_config
from tests.test_cli import PROGRAMS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
COMMAND = re.compile(r"(rattn|python main\.py|python -m experiments\.\w+)( .*)?")


def commands():
    """Every command in a block of code, as (page, line)."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"^    +(.*)$", text, re.MULTILINE):
            command = " ".join(line.partition("  #")[0].split())
            if COMMAND.fullmatch(command) and "..." not in command:
                found.append((page.name, command))
    return list(dict.fromkeys(found))


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
    assert len(commands()) > 30


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_are_understood(only_parse, page, command):
    words = shlex.split(command)
    if words[:2] == ["python", "main.py"]:
        words = ["rattn", "train", *words[2:]]
    program, arguments = (
        (words[2], words[3:]) if words[0] == "python" else (" ".join(words[:2]), words[2:])
    )
    with pytest.raises(Parsed) as parsed:
        PROGRAMS[program](arguments)
    (result,) = parsed.value.args
    options, overrides = result if isinstance(result, tuple) else (result, [])
    if getattr(options, "config", None):
        if data := getattr(options, "data", None):
            overrides = [*overrides, f"--config.dataset.name=folder:{data}"]
        parse_config(load_config(options.config, overrides))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_page_of_all_keys_is_that_of_the_config():
    written = runpy.run_path(str(ROOT / "docs/make_configuration.py"))["configuration"]()
    assert (ROOT / "docs/configuration.md").read_text() == written
