"""What every unit test leaves as it found it."""

import logging

import pytest
import structlog


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
