"""Jobs on the disk: whether they come there, and whether their owners hear of their end."""

from typing import Final

from alerts.rule import COUNT, INSTANCE, Alert, Severity
from alerts.windows import Windows

HALF: Final = 0.5
GIVEN_UP: Final = 2.5
"""Three in the window: one receiver's mistake is its own. increase() extrapolates."""

REFUSED: Final = 0.1
OLDEST_SECONDS: Final = 900
"""Four attempts or so; a receiver that is started anew is back by then."""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the alerts, the gravest first."""
    return (_store(windows), _damaged(windows), _webhooks(windows), _uploads(windows))


def _store(windows: Windows) -> Alert:
    """Return the alert; one lock for the length of a backup is a part of all writes, no half."""
    window = windows.store
    failed = f"sum by (job, instance) (increase(sd_store_failures_total[{window}]))"
    written = f"sum by (job, instance) (increase(sd_store_commit_duration_seconds_count[{window}]))"
    return Alert(
        name="SDJobStoreFailing",
        severity=Severity.PAGE,
        expr=f"""
            {failed}
            / ({failed} + {written})
            > {HALF}
        """,
        lasting=windows.store_for,
        summary=f"The job store of {INSTANCE} fails",
        description="{{ $value | humanizePercentage }} of the operations on the job store in "
        f"{window} failed. New jobs are refused with 503; finished jobs stay in memory until the "
        "store takes them.",
        dashboard="sd-service",
    )


def _damaged(windows: Windows) -> Alert:
    """Return the alert: it lasts as long as there are rows that nobody has looked at."""
    window = windows.webhooks
    return Alert(
        name="SDKeptDataDamaged",
        severity=Severity.TICKET,
        expr=f"""
            max by (job, instance) (sd_store_rows_set_aside) > 0
            or sum by (job, instance) (increase(sd_results_damaged_total[{window}])) > 0
            or sum by (job, instance) (increase(sd_jobs_total{{code="input_lost"}}[{window}])) > 0
        """,
        at_once="what is damaged does not become whole by itself.",
        summary=f"Kept data of {INSTANCE} is damaged",
        description="Rows of the job store were set aside because no service wrote them, or images "
        f"that were needed in the last {window} had changed on the disk: {COUNT}. All other jobs "
        "are served.",
        dashboard="sd-service",
    )


def _webhooks(windows: Windows) -> Alert:
    """Return the alert: most deliveries are given up, or none arrives at all."""
    window = windows.webhooks

    def made(outcome: str) -> str:
        return (
            "sum by (job, instance) "
            f'(increase(sd_webhook_attempts_total{{outcome="{outcome}"}}[{window}]))'
        )

    failed, delivered = made("failed"), made("delivered")
    return Alert(
        name="SDWebhooksFailing",
        severity=Severity.TICKET,
        expr=f"""
            (
              {failed} > {GIVEN_UP}
              and on (job, instance) {failed} / ({failed} + {delivered}) > {HALF}
            )
            or (
              max by (job, instance) (sd_webhook_oldest_pending_age_seconds) > {OLDEST_SECONDS}
              unless on (job, instance) {delivered} > 0
            )
        """,
        lasting=windows.webhooks_for,
        summary=f"Webhooks of {INSTANCE} do not arrive",
        description="The service gave up most of the webhooks that ended in the last "
        f"{window}, or delivered none while the oldest has waited for 15 minutes. Their receivers "
        f"get no news of their jobs. Deliveries given up, or seconds waited: {COUNT}.",
        dashboard="sd-service",
    )


def _uploads(windows: Windows) -> Alert:
    """Return the alert; one client that sends too much at a time is told so, and is no news."""
    window = windows.clients

    def made(outcome: str) -> str:
        return (
            f'sum by (job, instance) (increase(sd_uploads_total{{outcome="{outcome}"}}[{window}]))'
        )

    refused, received = made("refused"), made("received")
    return Alert(
        name="SDUploadsRefused",
        severity=Severity.TICKET,
        expr=f"""
            {refused} > {GIVEN_UP}
            and on (job, instance) {refused} / ({refused} + {received}) > {REFUSED}
        """,
        lasting=windows.clients_for,
        summary=f"{INSTANCE} refuses images that clients send",
        description=f"In the last {window} too many bytes of images were on their way in at a time "
        f"for more than a tenth of them. Images refused with 429 or 503: {COUNT}.",
        dashboard="sd-service",
    )
