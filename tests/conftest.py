"""What holds for the whole suite."""

import logging
import os

import pytest
import structlog

FUZZ_CASES = 2000
FUZZ_SEED = 1
PRIVILEGED = "privileged"
"""Marks what no installation brings: rights that a machine gives or not."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the fuzzing be longer, or other, than it is by default."""
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
    """Leave the logging of the test process as it was."""
    root = logging.getLogger()
    handlers, level, settings = root.handlers[:], root.level, structlog.get_config()
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**settings)
    structlog.contextvars.clear_contextvars()
