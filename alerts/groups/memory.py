"""Memory of the device: when it ran out, and when it is about to."""

from typing import Final

from alerts.rule import COUNT, ENGINE, INSTANCE, Alert, Severity
from alerts.windows import Windows

FAILED: Final = 'rung="fail"'
HELPED: Final = 'rung!="fail"'
FAILURES_TO_PAGE: Final = 2.5
"""Three in the window; increase() extrapolates two to at most 2.2."""
NEAR: Final = 0.92
"""Of the device's memory: at 512 x 512 one more image of a batch takes 2 to 5 % of 6 GB."""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the alerts, the gravest first."""
    return (
        _repeated(windows),
        _first(windows),
        _refused(windows),
        _recovered(windows),
        _near(windows),
    )


def happened(selected: str, by: str, windows: Windows) -> str:
    """Return PromQL that is true at the first shortage, and stays so for a while.

    ``increase()`` sees a counter move. It does not see one that is born with its first
    event: because the scrape before the event failed, or Prometheus came later. Then the
    time of the latest event tells, together with nothing being known of the time before.
    """
    window = windows.memory
    return f"""\
sum by ({by}) (increase(sd_oom_total{{{selected}}}[{window}])) > 0
or (
  (
    sum by ({by}) (sd_oom_total{{{selected}}}) > 0
    unless sum by ({by}) (sd_oom_total{{{selected}}} offset {window})
  )
  and on (job, instance, engine) time() - sd_oom_last_timestamp_seconds < {window.number}
)"""


def _first(windows: Windows) -> Alert:
    return Alert(
        name="SDOutOfMemory",
        severity=Severity.TICKET,
        expr=happened(FAILED, "job, instance, engine, stage", windows),
        at_once="the first request that fails because memory ran out is one too many.",
        summary=f"{ENGINE} ran out of memory in {{{{ $labels.stage }}}} and failed a request",
        description="Memory ran out in the stage {{ $labels.stage }}, and neither a free cache nor "
        "smaller pieces helped, so the request was answered with 503. "
        f"Requests in the last {windows.memory}: {COUNT}.",
        dashboard="sd-gpu",
    )


def _repeated(windows: Windows) -> Alert:
    window = windows.memory_repeated
    return Alert(
        name="SDOutOfMemoryRepeated",
        severity=Severity.PAGE,
        expr=f"""
            sum by (job, instance, engine) (increase(sd_oom_total{{{FAILED}}}[{window}]))
            > {FAILURES_TO_PAGE}
        """,
        at_once="the count already spans the whole window.",
        summary=f"{ENGINE} keeps running out of memory",
        description=f"{COUNT} requests failed in {window} because memory ran out. It does not get "
        "better without a change: the model, the requested sizes and the batch together are too "
        "large for this device, or another program uses its memory.",
        dashboard="sd-gpu",
    )


def _refused(windows: Windows) -> Alert:
    return Alert(
        name="SDPicturesDoNotFit",
        severity=Severity.TICKET,
        expr=f"""
            sum by (job, instance)
            (increase(sd_requests_refused_total{{reason="memory"}}[{windows.memory}])) > 0
        """,
        at_once="the count already spans the whole window.",
        summary=f"{INSTANCE} refuses images that do not fit into its memory",
        description="Requests within the limits of the settings were answered with 503, because "
        "the engine's estimate says that one such image needs more memory than there is. "
        f"Requests in the last {windows.memory}: {COUNT}.",
        dashboard="sd-gpu",
    )


def _recovered(windows: Windows) -> Alert:
    """Not while a request failed in the same stage: on the way down the other rungs count too."""
    happens = happened(HELPED, "job, instance, engine, stage, rung", windows)
    failures = f"increase(sd_oom_total{{{FAILED}}}[{windows.memory}])"
    fails = f"sum by (job, instance, engine, stage) ({failures})"
    return Alert(
        name="SDOutOfMemoryRecovered",
        severity=Severity.INFO,
        expr=f"(\n{happens}\n)\nunless on (job, instance, engine, stage) {fails} > 0",
        at_once="it reports an event that is already over.",
        summary=f"{ENGINE} ran out of memory in {{{{ $labels.stage }}}} and recovered",
        description="Memory ran out in the stage {{ $labels.stage }}; {{ $labels.rung }} made room "
        "and no request failed, but work was done twice and the next shortage may not end so "
        f"well. Times in the last {windows.memory}: {COUNT}.",
        dashboard="sd-gpu",
    )


def _near(windows: Windows) -> Alert:
    """Count what cannot be given back: the allocator keeps freed memory for its next use."""
    cached = """(
        sd_engine_gpu_memory_bytes{kind="reserved"}
        - ignoring (kind) sd_engine_gpu_memory_bytes{kind="allocated"}
      )
      * on (job, instance, engine) group_left (gpu) sd_engine_gpu_info"""
    return Alert(
        name="SDVramNearLimit",
        severity=Severity.TICKET,
        expr=f"""
(
  sd_gpu_memory_used_bytes
    - on (job, instance, gpu) group_left () sum by (job, instance, gpu) (
      {cached}
    )
  or sd_gpu_memory_used_bytes
)
/ on (job, instance, gpu) (sd_gpu_memory_total_bytes > 0)
> {NEAR}
""",
        lasting=windows.memory_near_for,
        summary=f"{INSTANCE} has little GPU memory left",
        description="{{ $value | humanizePercentage }} of the memory of {{ $labels.gpu }} is in "
        "use, what the engine could give back not counted. A larger image or one more in the "
        "batch may not fit.",
        dashboard="sd-gpu",
    )
