"""What holds for the whole suite."""

import logging
import os
from pathlib import Path

import pytest
import structlog
from aiohttp import web_app

# An assertion in a helper of tests says what it compared, as one in a test does.
pytest.register_assert_rewrite("tests.fuzz", "tests.support", "tests.unit")

TESTS = Path(__file__).parent
SERVING = (
    *("acceptance/test_chaos", "acceptance/test_documents", "acceptance/test_engines"),
    *("acceptance/test_hostile", "acceptance/page/test_demo"),
    *("acceptance/test_memory_stress", "acceptance/test_monitoring", "acceptance/test_overload"),
    *("acceptance/test_readme", "acceptance/test_switches", "acceptance/test_webhooks"),
    *("test_integration_cardinality", "test_integration_damaged", "test_integration_log"),
    *("test_integration_memory", "test_integration_optimize", "test_integration_performance"),
    *("test_integration_profile", "test_integration_service", "test_integration_start"),
    "unit/demo/",
)
"""Tests that run the demo model, which computes with all cores.

That of the clean room installs for minutes and computes for seconds, so it is none of them."""
BY_FILE = ("acceptance/", "disasters/", "fuzz/", "test_integration_")
"""Tests that share the services of their file."""
CLUSTER = ("cluster/", "unit/scripts/test_local_cluster")
"""Tests that share one Ray cluster, and one that looks at what clusters leave behind."""

FUZZ = "fuzz/"
FUZZ_CASES = 900
FUZZ_SEED = 1
PRIVILEGED = "privileged"
"""Marks what no installation brings: rights that a machine gives or not."""


# With rich next to it, structlog would draw the locals of each frame: a second per traceback.
*_PROCESSORS, _ = structlog.get_config()["processors"]
_CONSOLE = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*_PROCESSORS, _CONSOLE])

# Threads that wait leave the cores to other processes. OpenMP reads it before its first thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the fuzzing be longer, as in make test-long, or other than it is by default."""
    parser.addoption(
        "--fuzz-cases",
        type=int,
        default=int(os.environ.get("FUZZ_CASES", FUZZ_CASES)),
        help=f"requests that the API is fuzzed with, at least (FUZZ_CASES, default {FUZZ_CASES})",
    )
    parser.addoption(
        "--fuzz-seed",
        type=int,
        default=int(os.environ.get("FUZZ_SEED", FUZZ_SEED)),
        help=f"what the fuzzing is drawn from (FUZZ_SEED, default {FUZZ_SEED})",
    )


@pytest.hookimpl(tryfirst=True)  # xdist reads the mark in the same hook.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each worker whole files, and keep those that compute with all cores in one worker.

    Two services that compute at a time would take ten times as long.
    """
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        if path.startswith(FUZZ):
            item.add_marker(pytest.mark.fuzz)
        if path.startswith(SERVING):
            item.add_marker(pytest.mark.xdist_group("all cores"))
        elif path.startswith(CLUSTER):
            item.add_marker(pytest.mark.xdist_group("clusters"))
        elif path.startswith(BY_FILE):
            item.add_marker(pytest.mark.xdist_group(path))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run without groups: versions that do not fit each other leave them out silently."""
    if not session.config.getoption("loadgroup", default=False):
        return
    for item in session.items:
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
            raise pytest.UsageError("pytest-xdist does not group tests: see constraints.txt")


def pytest_report_header(config: pytest.Config) -> str:
    """Say what a run is repeated with."""
    cases, seed = config.getoption("--fuzz-cases"), config.getoption("--fuzz-seed")
    return f"fuzzing: --fuzz-cases {cases} --fuzz-seed {seed}"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that skipped a test, where NO_SKIPS says that nothing is missing there.

    Rights may be: a test that is marked ``privileged`` says by its skip what it lacks.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("NO_SKIPS"):
        return
    skipped = sum(PRIVILEGED not in each.keywords for each in reporter.stats.get("skipped", ()))
    if skipped and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"NO_SKIPS is set and {skipped} were skipped.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _restored():
    """Leave the logging of the test process as it was, and no application of a test behind."""
    root = logging.getLogger()
    handlers, level, settings = root.handlers[:], root.level, structlog.get_config()
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**settings)
    structlog.contextvars.clear_contextvars()
    # It holds 1,024 applications, and the garbage collector would look through all of them.
    web_app._cached_build_middleware.cache_clear()
