"""Whether spans are exported, and where to: the settings are OpenTelemetry's own."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog

from service.system import installation

if TYPE_CHECKING:
    from service.telemetry.spans import Spans  # It needs the extra.

log = structlog.get_logger(__name__)

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL: Final = "http/protobuf"
EXTRAS: Final = (installation.ENGINE, "tracing")
HEADERS: Final = (
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
)


def endpoint(environment: Mapping[str, str]) -> str:
    """Return where spans go, or an empty text: tracing is off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return ""
    return next((environment[name] for name in ENDPOINTS if environment.get(name)), "")


def start(environment: Mapping[str, str]) -> "Spans | None":
    """Start to export spans, if an OTLP endpoint is configured and the extra is installed.

    The settings are OpenTelemetry's own, and nothing in them can keep the service from
    starting: whoever looks for spans that do not come finds the reason in the log.
    """
    goal = endpoint(environment)
    if not goal:
        return None
    try:
        from service.telemetry.spans import Spans  # noqa: PLC0415 - it needs the extra
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        cure = installation.here().extras(*EXTRAS)
        log.warning("tracing_extra_missing", missing=error.name, cure=cure)
        return None
    if (problem := _problem(goal)) is not None:
        log.error("tracing_not_started", reason=problem)
        return None
    asked = next((environment[name] for name in PROTOCOLS if environment.get(name)), PROTOCOL)
    if asked != PROTOCOL:
        log.warning("tracing_protocol_unknown", asked=asked, used=PROTOCOL)
    try:
        spans = Spans()
    except Exception as error:  # noqa: BLE001 - whatever OpenTelemetry makes of its settings
        log.error("tracing_not_started", reason=str(error))  # noqa: TRY400 - no traceback helps
        return None
    log.info("tracing_started", endpoint=_without_password(goal))
    return spans


def secrets(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that hold credentials: headers, and addresses with a password."""
    with_password = [name for name in ENDPOINTS if "@" in environment.get(name, "")]
    return [*(name for name in HEADERS if name in environment), *with_password]


def _problem(url: str) -> str | None:
    """Return why spans cannot go to ``url``; None where they may."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    return None if whole else "the OTLP endpoint must be a URL such as http://127.0.0.1:4318"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
