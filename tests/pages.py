"""The pages of the documentation: the commands on them, and the blocks of Python."""

import ast
import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
_COMMAND = re.compile(r"(.+ \| )?(rattn|python main\.py|python -m experiments\.\w+)( .+)?")
_OF_CHOICE = re.compile(r"\.\.\.|\bNAME\b")  # what the reader replaces, here by "digits"


class Command(NamedTuple):
    """A command of a page.

    Attributes:
        line: on the page.
        program: a key of `test_cli.PROGRAMS`.
        arguments: of the program, with all that are optional.
        piped: the command that writes its standard input; empty if there is none.
    """

    line: str
    program: str
    arguments: list[str]
    piped: str


def commands():
    """Every command on the pages, once: in blocks of code, or in a sentence with arguments."""
    found = {}
    for page in PAGES:
        text = _without_fences(page)
        blocks = re.findall(r"^    +(.*)$", text.replace("\\\n", " "), re.MULTILINE)
        in_blocks = [_parse(line.partition("  #")[0]) for line in blocks]
        in_sentences = [_parse(code) for code in re.findall(r"`([^`]+)`", text)]
        found |= {c.line: c for c in in_blocks if c}
        found |= {c.line: c for c in in_sentences if c and c.arguments}
    return list(found.values())


def python_blocks(page):
    """The blocks of Python of a page, but for those in fences."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", _without_fences(page), re.MULTILINE)
    return [code for code in map(textwrap.dedent, blocks) if _does_something(code)]


def _without_fences(page):
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def _parse(line):
    """The command of a line; None if it is something else."""
    line = " ".join(line.split())
    if not (match := _COMMAND.fullmatch(line)):
        return None
    given = re.sub(r"\[(--[^]]*)\]", r"\1", line.removeprefix(match[1] or ""))
    words = shlex.split(_OF_CHOICE.sub("digits", given))
    if words[0] == "rattn":
        program, arguments = " ".join(words[:2]), words[2:]
    elif words[1] == "-m":
        program, arguments = words[2], words[3:]
    else:
        program, arguments = "rattn train", words[2:]
    return Command(line, program, arguments, (match[1] or "").removesuffix(" | "))


def _does_something(code):
    try:
        nodes = ast.parse(code).body
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Import | ast.ImportFrom | ast.Assign) for node in nodes)
