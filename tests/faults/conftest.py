"""Faults on purpose: how many, and what became of them.

    pytest tests/faults              a few of each, as part of the suite
    pytest tests/faults --counted    all of them; started again, it goes on where it was

A test asks for a fixture `case`, a number, says with `@pytest.mark.fault(NAME, fast=, counted=)`
how many there are, and calls `outcome(WORD)` with what became of the fault. Whatever fails is lost.
"""

import hashlib
import json
import platform
import subprocess
from collections import Counter, defaultdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "runs/faults.jsonl"


DONE = pytest.StashKey[list[str]]()  # tests whose fault was not lost, in earlier runs

_RECORDS = False


def pytest_configure(config):
    global _RECORDS
    config.addinivalue_line("markers", "fault(name, fast, counted): faults of one kind")
    worker = getattr(config, "workerinput", None)
    _RECORDS = is_counted(config) and worker is None
    if _RECORDS:
        earlier = earlier_results()
        config.stash[DONE] = [name for name, row in earlier.items() if row["result"] != "lost"]
    elif is_counted(config):
        config.stash[DONE] = worker["done"]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    # One that replaces a worker that died must get the tests that the others got.
    if is_counted(node.config):
        node.workerinput["done"] = node.config.stash[DONE]


def is_counted(config):
    # Where the whole suite runs, this file is read after the options.
    return config.getoption("--counted", default=False)


def pytest_addoption(parser):
    parser.addoption("--counted", action="store_true", help="all faults, not only a few of each")


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("fault")
    if marker and "case" in metafunc.fixturenames:
        count = marker.kwargs["counted" if is_counted(metafunc.config) else "fast"]
        metafunc.parametrize("case", range(count))


@cache
def code():
    """What is tested: commit, what differs from it, Python and JAX."""

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
        return done.stdout

    commit = git("describe", "--always", "--abbrev=40", "--exclude=*").decode().strip()
    changes = hashlib.sha256(git("diff", "HEAD")).hexdigest()[:12] if git("diff", "HEAD") else ""
    return f"{commit} {changes} {platform.python_version()} {version('jax')}"


def earlier_results():
    """What was found with this code before, by test."""
    if not RESULTS.exists():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines() if line.endswith("}")]
    return {row["test"]: row for row in rows if row.get("code") == code()}


def pytest_collection_modifyitems(config, items):
    if not is_counted(config):
        return
    done = set(config.stash[DONE])
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]


def pytest_sessionfinish(session, exitstatus):
    """Nothing is left to do where all faults have been met before."""
    none = exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
    if none and is_counted(session.config) and session.config.stash[DONE]:
        session.exitstatus = pytest.ExitCode.OK


@pytest.fixture
def outcome(request, record_property):
    """Says what became of the fault."""
    record_property("fault", request.node.get_closest_marker("fault").args[0])
    return lambda word: record_property("outcome", word)


def pytest_runtest_logreport(report):
    properties = dict(report.user_properties)
    if report.when == "???":  # the whole process of the test died
        properties["fault"] = f"{report.nodeid.partition('[')[0]}, whose process died"
    elif report.when != "call" or report.skipped:
        return
    if not _RECORDS or "fault" not in properties:
        return
    result = properties.get("outcome", "recovered") if report.passed else "lost"
    RESULTS.parent.mkdir(exist_ok=True)
    row = {"test": report.nodeid, "fault": properties["fault"], "result": result}
    with RESULTS.open("a") as file:
        file.write(json.dumps(row | {"code": code()}) + "\n")


def pytest_terminal_summary(terminalreporter, config):
    if not _RECORDS:
        return
    counts = defaultdict(Counter)
    for row in earlier_results().values():
        counts[row["fault"]][row["result"]] += 1
    lines = ["| fault | injected | what became of them | lost |", "|---|---|---|---|"]
    for name, results in counts.items():
        words = ", ".join(f"{n} {word}" for word, n in sorted(results.items()) if word != "lost")
        lines.append(f"| {name} | {results.total()} | {words} | {results['lost']} |")
    terminalreporter.write_line("\n".join(lines))
