"""What is full: the queue, how slow it is and whether it moves at all, and the connections."""

from typing import Final

from alerts.rule import INSTANCE, Alert, Severity
from alerts.windows import Windows

FULL: Final = 0.8
"""Of the places; a full queue turns requests away."""
WAIT_SECONDS: Final = 10
"""For one in ten; a third of the 30 seconds in which an image should be there."""
OLDEST_SECONDS: Final = 60
"""What has waited so long shows in no quantile before it starts."""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the alerts, the gravest first."""
    return (_stuck(windows), _depth(windows), _wait(windows), _connections(windows))


def _stuck(windows: Windows) -> Alert:
    """Return the alert; a job that times out has ended, and shows no sign of life.

    While a model loads, jobs wait as they should: only an engine that was there counts. Whether
    the service is ready does not: it says no as soon as its engine has been silent for long.
    An engine that holds jobs and neither does a step nor ends one is stuck, although another
    works on; whatever ends one, and be it a failure before the first step, counts device time.
    """
    window = windows.stuck
    return Alert(
        name="SDQueueStuck",
        severity=Severity.PAGE,
        expr=f"""
            (
              min_over_time(sd_jobs_running[{window}]) > 0
              and on (job, instance, engine) increase(sd_steps_total[{window}]) == 0
              and on (job, instance, engine)
                min_over_time(sd_engine_state{{state="ready"}}[{window}]) == 1
              unless on (job, instance, engine)
                sum by (job, instance, engine) (increase(sd_gpu_seconds_total[{window}])) > 0
            )
            or on (job, instance) (
              min_over_time(sd_queue_depth[{window}]) > 0
              and on (job, instance)
                sum by (job, instance) (
                  increase(sd_jobs_total{{outcome=~"succeeded|failed"}}[{window}])
                ) == 0
              and on (job, instance)
                sum by (job, instance) (increase(sd_steps_total[{window}])) == 0
              and on (job, instance)
                min_over_time(sd_engine_state{{state="ready"}}[{window}]) == 1
            )
        """,
        lasting=windows.stuck_for,
        summary=f"The queue of {INSTANCE} stands still",
        description=f"{{{{ $value }}}} or more jobs have been waiting or in the engine for "
        f"{window}, and in that time no job finished and no denoising step was done.",
        dashboard="sd-service",
    )


def _depth(windows: Windows) -> Alert:
    return Alert(
        name="SDQueueDepthHigh",
        severity=Severity.TICKET,
        expr=f"sd_queue_depth / (sd_queue_limit > 0) > {FULL}",
        lasting=windows.depth_for,
        summary=f"The queue of {INSTANCE} is nearly full",
        description="{{ $value | humanizePercentage }} of the places in the queue are taken. "
        "When all are, requests are refused with 503.",
        dashboard="sd-service",
    )


def _wait(windows: Windows) -> Alert:
    return Alert(
        name="SDQueueWaitHigh",
        severity=Severity.TICKET,
        expr=f"""
            histogram_quantile(
              0.9, sum by (job, instance, le) (rate(sd_queue_wait_seconds_bucket[{windows.wait}]))
            ) > {WAIT_SECONDS}
            or max by (job, instance) (sd_queue_oldest_job_age_seconds) > {OLDEST_SECONDS}
        """,
        lasting=windows.wait_for,
        summary=f"Requests wait long at {INSTANCE}",
        description="One request in ten waits {{ $value | humanizeDuration }} or longer before "
        "work on it begins, or the oldest has waited that long already.",
        dashboard="sd-service",
    )


def _connections(windows: Windows) -> Alert:
    return Alert(
        name="SDConnectionsHigh",
        severity=Severity.TICKET,
        expr=f"sd_connections / (sd_connections_limit > 0) > {FULL}",
        lasting=windows.depth_for,
        summary=f"Connections to {INSTANCE} are nearly used up",
        description="{{ $value | humanizePercentage }} of the allowed connections are open. "
        "When all are busy, requests are refused with 503; only probes and /metrics are "
        "answered.",
        dashboard="sd-service",
    )
