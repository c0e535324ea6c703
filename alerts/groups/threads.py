"""Threads for blocking calls: whether something they call does not answer."""

from alerts.rule import COUNT, INSTANCE, Alert, Severity
from alerts.windows import Windows


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the one alert: every thread of an executor is busy, at every scrape."""
    return (
        Alert(
            name="SDThreadsBusy",
            severity=Severity.TICKET,
            expr="sd_executor_busy_threads >= sd_executor_threads",
            lasting=windows.threads_for,
            summary=f"Every thread for {{{{ $labels.executor }}}} of {INSTANCE} is busy",
            description=f"{COUNT} blocking calls have taken all threads for "
            f"{{{{ $labels.executor }}}} for {windows.threads_for}: what they call is slow or "
            "does not answer. API keys without a call get a thread beyond them, where there are "
            "some to spare; other kinds of calls are not affected.",
            dashboard="sd-service",
        ),
    )
