"""What holds for the whole suite."""

import os

import pytest


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that skipped a test, where NO_SKIPS says that nothing is missing there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("NO_SKIPS"):
        return
    skipped = len(reporter.stats.get("skipped", ()))
    if skipped and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"NO_SKIPS is set and {skipped} were skipped.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
