"""Clients whose requests come to nothing, by the API that they use."""

from typing import Final

from alerts.rule import INSTANCE, Alert, Severity
from alerts.windows import Windows

ASKED: Final = 'method="POST", route!="unmatched"'
"""What clients ask the service to do. Reading is left out: clients poll, and that is answered
whatever else goes wrong. So are unknown paths, which strangers try."""

PASSING: Final = "401|408|409|429|499|503"
"""What is answered when the key is wrong, there is too much to do, or the client hung up: other
alerts speak of it, or the client is told to come again."""

ANSWERED: Final = f'{ASKED}, status!~"{PASSING}"'
FAILED: Final = f'{ASKED}, status=~"4..|500", status!~"{PASSING}"'
OTHERS: Final = 'api=~"openai|sdapi|page"'
"""APIs of programs that others made: their users cannot repair them. Who writes a program for
the native API sees its errors, and repairs it."""

HALF: Final = 0.5
FEWEST: Final = 9.5
"""Ten in the window: one person who tries things out is no reason. increase() extrapolates."""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_failing(windows),)


def _failing(windows: Windows) -> Alert:
    def grown(matchers: str) -> str:
        return (
            "sum by (job, instance, api) "
            f"(increase(sd_http_requests_total{{{OTHERS}, {matchers}}}[{windows.clients}]))"
        )

    return Alert(
        name="SDClientsFailing",
        severity=Severity.TICKET,
        expr=f"""
            {grown(FAILED)}
            / {grown(ANSWERED)}
            > {HALF}
            and on (job, instance, api) {grown(FAILED)} > {FEWEST}
        """,
        lasting=windows.clients_for,
        summary=f"Clients of the API {{{{ $labels.api }}}} get errors from {INSTANCE}",
        description="{{ $value | humanizePercentage }} of the requests that came through the API "
        f"{{{{ $labels.api }}}} in {windows.clients} and should have done something were answered "
        "with an error that asking again does not end. The clients ask for what the service does "
        "not have or allow.",
        dashboard="sd-service",
    )
