"""docs/FAILURES.md, against the tests, codes, metrics, alerts and settings that it names."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from service import errors
from service.config.setting import environment_name
from service.config.table import Config
from service.engine.heartbeat import GROWTH, STAGE_FLOOR_SECONDS, STEP_FLOOR_SECONDS, TIMES
from service.engine.process.parent import RESTART_DELAYS
from service.jobs.dispatch.circuit import BEYOND_ONE_JOB, CRASHES_TO_OPEN
from service.telemetry.labels import RESTART_REASONS
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "FAILURES.md").read_text(encoding="utf-8")
TABLE = DOCUMENT.partition("## Failures")[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("| ")
][1:]
TESTS = [row[4].strip("`") for row in ROWS]
KINDS = {kind for kind in vars(errors).values() if isinstance(kind, type)}
CODES = {kind.code for kind in KINDS if issubclass(kind, errors.ServiceError)}


def functions(path: Path) -> set[str]:
    """Return the names of the functions in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_row_is_whole():
    """What fails, what is seen, what becomes of the work, where it shows, and the test."""
    assert len(ROWS) >= 25
    assert all(len(row) == 5 and all(row) for row in ROWS)
    assert len(set(TESTS)) == len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("test", TESTS)
def test_every_failure_names_a_test_that_exists(test):
    """What nobody has done to the service is a hope."""
    path, _, name = test.partition("::")
    assert name.startswith("test_")
    assert name in functions(ROOT / path)


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "disasters").glob("test_*.py")))
def test_every_disaster_is_in_the_table_or_a_part_of_another(path):
    """A new one is documented."""
    parts = {
        "test_the_clock_is_what_the_service_goes_by",
        "test_a_deadline_given_after_a_jump_ends_in_its_time",
        # The same without torch, and quick.
        "test_a_model_damaged_while_it_runs_opens_the_circuit_until_it_is_repaired",
        "test_jobs_of_an_earlier_process_survive_a_start_without_a_model",
        # Defences: docs/SECURITY.md has them.
        "test_the_service_shows_its_secrets_to_no_process_of_its_user",
        "test_a_debugger_is_let_in_where_that_is_asked_for",
        "test_the_engine_has_no_secret_in_its_environment",
    }
    named = {test.partition("::")[2] for test in TESTS}
    assert {name for name in functions(path) if name.startswith("test_")} <= named | parts


def test_what_is_named_exists():
    """Codes, metrics, reasons, alerts and settings."""
    words = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TABLE))
    metrics = {each.name for each in Metrics().definitions}
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "service").rglob("*.py"))
    logged = set(re.findall(r"log\.\w+\(\s*\"([a-z_]+)\"", source))
    assert words - metrics - CODES - logged == set()
    assert set(re.findall(r"with reason (\w+)", TABLE)) <= set(RESTART_REASONS)
    runbooks = {path.stem for path in (ROOT / "alerts" / "runbooks").glob("*.md")}
    assert set(re.findall(r"\bSD[A-Z]\w+", DOCUMENT)) <= runbooks
    settings = {environment_name(row) for row in fields(Config)}
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", DOCUMENT)) <= settings


def test_the_figures_are_those_of_the_code():
    """Who changes one changes the document."""
    *first, last = (f"{delay:g}" for delay in RESTART_DELAYS)
    text = " ".join(DOCUMENT.split())
    assert f"after {', '.join(first)} and then every {last} seconds" in text
    assert (TIMES, STEP_FLOOR_SECONDS, STAGE_FLOOR_SECONDS) == (10, 5, 20)
    assert GROWTH == 2
    assert "with the square of its pixels" in text
    assert "may take ten times its usual time, and 5 s at least" in text
    assert "first step of a size may take 20 s at least" in text
    assert (CRASHES_TO_OPEN, BEYOND_ONE_JOB) == (5, 2)
    assert "Five ends in a row without a finished job (two more than `MAX_ATTEMPTS`" in text
