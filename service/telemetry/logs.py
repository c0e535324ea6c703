"""Logs: one configuration for our own lines and those of every library."""

import dataclasses
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.config.table import Config
from service.core.spec import TEXTS
from service.telemetry import stderr

SELDOM_SECONDS: Final = 60.0
CHATTY: Final = ("httpx", "httpx2")
"""They tell of every request, at INFO: dozens for one model of the hub."""


class OwnHandler(logging.StreamHandler[TextIO]):
    """The one handler that this module adds, so that it finds it again."""


class Seldom(logging.Filter):
    """Lets one line of a logger pass in a while, for libraries that repeat a complaint."""

    def __init__(
        self, seconds: float = SELDOM_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the last line that passed is long enough ago."""
        now = self._clock()
        if now < self._next.get(record.name, now):
            return False
        self._next[record.name] = now + self._seconds
        return True


def configure(config: Config) -> None:
    """Send all log lines to stderr, as JSON or in colours; calling it again replaces it."""
    handler = OwnHandler(sys.stderr)
    handler.setFormatter(formatter(config, terminal=stderr.is_terminal()))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, OwnHandler):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(config.log_level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(config),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def formatter(config: Config, *, terminal: bool) -> logging.Formatter:
    """Build what turns a line into text; ``auto`` is colours on a terminal, else JSON."""
    coloured = config.log_format == "console" or (config.log_format == "auto" and terminal)
    # The default renderers of tracebacks print local variables, and with them prompts.
    last: list[Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=terminal, exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if coloured
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_common(config),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _common(config: Config) -> list[Processor]:
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    return chain if config.log_prompts else [*chain, drop_prompts]


def drop_prompts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take prompts out of a line: they are what users wrote, and may be about people."""
    return {name: _spared(value) for name, value in event.items() if name not in TEXTS}


def _spared(value: Any) -> Any:
    """Return a value without the prompts inside it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {row.name: getattr(value, row.name) for row in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _spared(held) for name, held in value.items() if name not in TEXTS}
    if type(value) in (list, tuple):
        return type(value)(_spared(held) for held in value)
    return value
