"""docs/SECURITY.md, against the tests and the settings that it names."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from service.app import create_app
from service.config.setting import environment_name
from service.config.table import Config
from service.http.route import Access
from service.http.state import ROUTES
from tests.support.simulation.fake_engine import FakeEngine

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
THREATS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([^|`]+)` \|$", DOCUMENT, flags=re.MULTILINE)

NO_SETTINGS = {"CAP_SYS_PTRACE", "PR_SET_DUMPABLE", "HF_TOKEN", "RAY_AUTH_MODE"}

OPENED = re.compile(
    r"(ALLOW_UNAUTHENTICATED|--allow-unauthenticated)[\"'`]*\s*[:= ]\s*[\"'`]?(true|1|yes|on)\b",
    re.IGNORECASE,
)
NAMED = re.compile(r"ALLOWED_HOSTS|--allowed-hosts")
SHIPPED = ("README.md", "CONTRIBUTING.md", "Dockerfile", "Makefile", "*.yml")
FOLDERS = ("docs", "deploy", "monitoring", "scripts", "service")


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
    """By its name in the environment; the others are names of the system's and the hub's."""
    known = {environment_name(row) for row in fields(Config)}
    mentioned = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", DOCUMENT))
    assert mentioned - known == NO_SETTINGS


def test_every_setting_of_access_is_mentioned():
    """Whoever opens the service reads of all of them."""
    text = (ROOT / "service" / "config" / "access_settings.py").read_text(encoding="utf-8")
    access = text.partition("# Who may come in.")[2]
    names = {
        name.upper() for name in re.findall(r"^    (\w+): \w+ = setting\(", access, re.MULTILINE)
    }
    # This one only tunes a limit; it is in the table of settings.
    assert {n for n in names if n not in DOCUMENT} == {"RATE_LIMIT_BURST"}


def test_every_open_route_is_mentioned():
    """Except the files that belong to pages."""
    rows = create_app(Config(data_dir=""), FakeEngine())[ROUTES].rows
    open_paths = {row.path for row in rows if row.access in (Access.PUBLIC, Access.OPTIONAL_KEY)}
    routes = {route for route in open_paths if not route.startswith(("/docs/", "/page/"))}
    assert {route for route in routes if f"`{route}`" not in DOCUMENT} == set()


def shipped() -> list[Path]:
    """Return the files that an operator runs, reads or copies from."""
    found = [path for pattern in SHIPPED for path in ROOT.glob(pattern)]
    kinds = {".md", ".py", ".sh", ".env", ".yml", ".yaml", ".service", ".template", ".conf", ""}
    below = (path for name in FOLDERS for path in (ROOT / name).rglob("*"))
    return found + [path for path in below if path.is_file() and path.suffix in kinds]


def test_no_example_without_keys_lacks_allowed_hosts():
    """Whoever copies a line that needs no keys gets the defence against rebound names with it."""
    found, bare = 0, []
    for path in shipped():
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if OPENED.search(line):
                found += 1
                if not NAMED.search(" ".join(lines[max(0, number - 1) : number + 2])):
                    bare.append(f"{path.relative_to(ROOT)}:{number + 1}")
    assert bare == []
    assert found >= 6


def test_the_line_that_opens_the_service_to_prometheus_names_its_target():
    """Or every scrape would be 403."""
    (target,) = re.findall(
        r"\[([a-z.]+):8000\]",
        (ROOT / "monitoring" / "targets" / "host" / "sd-api.yml").read_text(encoding="utf-8"),
    )
    document = (ROOT / "docs" / "OBSERVABILITY.md").read_text(encoding="utf-8")
    (line,) = [line for line in document.splitlines() if OPENED.search(line)]
    (names,) = re.findall(r"ALLOWED_HOSTS=(\S+)", line)
    assert {target, "localhost"} <= {*names.split(",")}
