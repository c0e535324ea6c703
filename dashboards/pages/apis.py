"""Which API is used, and which one fails: a row of the service's dashboard."""

from typing import Final

from alerts.groups.clients import ANSWERED, FAILED, HALF
from dashboards import queries as q
from dashboards.kinds import lines
from dashboards.panel import BLUE, GREEN, GREY, ORANGE, RED, Panel, Target, colored
from service.telemetry import labels

COLORS: Final = {
    labels.NATIVE: GREEN,
    labels.OPENAI: BLUE,
    labels.SDAPI: ORANGE,
    labels.PAGE: "purple",
    labels.CLI: GREY,
}
"""The same in every panel, so that an API is known by its colour."""

BAD_STATUS: Final = 'status=~"4..|5.."'


def apis() -> list[Panel]:
    """Show requests, latency and errors of each API."""
    name = "{{api}}"
    failed, answered = (
        q.rate("sd_http_requests_total", f"{matchers}", by="api") for matchers in (FAILED, ANSWERED)
    )
    return [
        lines(
            "Requests by API",
            "Who asks: programs of the service's own API (native), clients of OpenAI (openai) or "
            "AUTOMATIC1111 (sdapi), the page, the command line. One that drops to zero: its "
            "clients do not reach the service any more, or were changed.",
            "reqps",
            Target(expr=q.rate("sd_http_requests_total", by="api"), legend=name),
            overrides=colored(COLORS),
            stacked=True,
        ),
        lines(
            "p95 latency by API",
            "One in twenty images takes longer, from acceptance to the end. One API alone: its "
            "clients ask for larger images, more steps or more images; all: see Queue wait. Red "
            "line: the objective.",
            "s",
            Target(
                expr=q.quantile(0.95, "sd_job_duration_seconds", 'outcome="succeeded"', by="api"),
                legend=name,
                exemplar=True,
            ),
            overrides=colored(COLORS),
            thresholds=((None, GREEN), (30.0, RED)),
            marked=True,
        ),
        lines(
            "Failed requests by API",
            "Share of the requests that should have started or changed something and were "
            "answered with an error that asking again does not end. Above the red line most of "
            "an API's clients get nothing: SDClientsFailing.",
            "percentunit",
            Target(expr=f"{failed} / {answered}", legend=name),
            overrides=colored(COLORS),
            thresholds=((None, GREEN), (HALF, RED)),
            marked=True,
            maximum=1,
        ),
        lines(
            "Errors by API and status",
            "Answers per minute. 400, 404 and 422: the clients ask for what there is not, or in "
            "another form. 401: keys. 429 and 503: too much. 500: the log has the reason.",
            "opm",
            Target(
                expr=f"60 * {q.rate('sd_http_requests_total', BAD_STATUS, by='api, status')}",
                legend="{{api}} {{status}}",
            ),
            overrides=colored({"/ 5..$/": RED, "/ 4..$/": ORANGE}),
            stacked=True,
            bars=True,
        ),
        lines(
            "Refused requests by API",
            "Refused before any work on them, per minute, by API and reason: which clients the "
            "limits meet.",
            "opm",
            Target(
                expr=f"60 * {q.rate('sd_requests_refused_total', by='api, reason')}",
                legend="{{api}} {{reason}}",
            ),
            stacked=True,
            bars=True,
        ),
        lines(
            "Jobs by API",
            "Jobs that ended, per minute: what each API makes the engine do.",
            "opm",
            Target(expr=f"60 * {q.rate('sd_jobs_total', by='api')}", legend=name),
            overrides=colored(COLORS),
            stacked=True,
        ),
        lines(
            "Options of callers",
            "Callers of the AUTOMATIC1111 API who have set options, and how many lost theirs to "
            "make room, per hour: at 1,000 callers those who used them least lately do.",
            "short",
            Target(expr=q.total("sd_sdapi_callers_with_options"), legend="callers"),
            Target(
                expr=f"3600 * {q.rate('sd_sdapi_options_evicted_total')}", legend="lost per hour"
            ),
            overrides=colored({"callers": BLUE, "lost per hour": RED}),
            width=24,
        ),
    ]
