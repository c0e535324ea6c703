"""docs/SECURITY.md, against the tests and the settings that it names."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from service.config import Config
from service.http import auth
from service.setting import environment_name

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
THREATS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([^|`]+)` \|$", DOCUMENT, flags=re.MULTILINE)


def functions(path: Path) -> set[str]:
    """Return the names of the functions in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_there_are_threats():
    """The table is read as it is written: every row of it names a test."""
    table = DOCUMENT.partition("## Threats")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(THREATS) == len(rows) - 1
    assert len(THREATS) >= 30


@pytest.mark.parametrize("test", [test for _, _, test in THREATS])
def test_every_threat_names_a_test_that_exists(test):
    """A defence without one is a promise."""
    path, _, name = test.partition("::")
    assert name.startswith("test_")
    assert name in functions(ROOT / path)


def test_no_threat_is_listed_twice():
    """Each row has a threat and a test of its own."""
    assert len({threat for threat, _, _ in THREATS}) == len(THREATS)
    assert len({test for _, _, test in THREATS}) == len(THREATS)


def test_every_setting_that_is_mentioned_exists():
    """By its name in the environment."""
    known = {environment_name(row) for row in fields(Config)}
    mentioned = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", DOCUMENT))
    assert mentioned - known == set()


def test_every_setting_of_the_doors_is_mentioned():
    """Whoever opens the service reads of all of them."""
    text = (ROOT / "service" / "config.py").read_text(encoding="utf-8")
    doors = text.partition("# Who may come in.")[2].partition("# The model")[0]
    names = {
        name.upper() for name in re.findall(r"^    (\w+): \w+ = setting\(", doors, re.MULTILINE)
    }
    # The two that only tune a limit are in the table of settings.
    assert {n for n in names if n not in DOCUMENT} == {
        "AUTH_FAILURES_PER_MINUTE",
        "RATE_LIMIT_BURST",
    }


def test_every_open_route_is_mentioned():
    """But for the files that belong to the page."""
    routes = {route for route in auth.OPEN if not route.startswith("/docs/")}
    assert {route for route in routes if f"`{route}`" not in DOCUMENT} == set()
