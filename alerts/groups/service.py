"""Whether the service is there, ready, and its engine alive.

The causes of an outage, which hold back its symptoms, fire for a while beyond its end: else
the errors of the outage, which stand in the windows of the burn rates until then, would page
when all is well again.
"""

from typing import Final

from alerts.rule import COUNT, ENGINE, INSTANCE, Alert, Severity
from alerts.windows import Windows

JOB: Final = 'job="sd-api"'
"""What Prometheus calls the service (``job_name`` in its configuration)."""

RESTARTS_TO_PAGE: Final = 2.5
"""Three in the window: one crash heals itself, a row of them does not. increase() extrapolates,
so two may read 2.1, and three never less than 3."""

STARTS_TO_PAGE: Final = 2
"""Three are a page, two may be a deployment and its correction. changes() does not extrapolate."""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the alerts, the ones that silence others first."""
    return (
        _target_down(windows),
        _service_restarting(windows),
        _model_not_loaded(windows),
        _circuit_open(windows),
        _not_ready(windows),
        *_engine_restarting(windows),
        _log_lines_dropped(windows),
        Alert(
            name="SDWatchdog",
            severity=Severity.NONE,
            expr="vector(1)",
            at_once="it fires always.",
            summary="Alerts work from end to end",
            description="This alert always fires. Its receiver must raise the alarm when it "
            "stops: then Prometheus, Alertmanager or the connection between them is broken.",
            dashboard="sd-service",
        ),
    )


def _log_lines_dropped(windows: Windows) -> Alert:
    return Alert(
        name="SDLogLinesDropped",
        severity=Severity.TICKET,
        expr=f"""
            sum by (job, instance) (increase(sd_log_lines_dropped_total[{windows.log}])) > 0
        """,
        at_once="the lines are gone already.",
        summary=f"The log of {INSTANCE} has gaps",
        description="The program that reads standard error of the service is gone or too slow. "
        f"Lines dropped in {windows.log}: {COUNT}. Requests are served as before.",
        dashboard="sd-service",
    )


def _target_down(windows: Windows) -> Alert:
    """Also when no target is left, or something else answers in the service's place.

    One target of several that vanishes is no alert: that is how instances are taken away.
    """
    return Alert(
        name="SDTargetDown",
        severity=Severity.PAGE,
        expr=f"""
            up{{{JOB}}} == 0
            or absent(up{{{JOB}}}) == 1
            or (up{{{JOB}}} == 1 unless on (job, instance) sd_build_info)
        """,
        lasting=windows.down_for,
        summary="{{ if $labels.instance }}{{ $labels.instance }} gives no metrics"
        "{{ else }}No sd-api is monitored at all{{ end }}",
        description="{{ if not $labels.instance }}Prometheus has no target in the job sd-api: "
        "a service that stops now would not be noticed."
        "{{ else if eq $value 0.0 }}Prometheus cannot read {{ $labels.instance }}/metrics: the "
        "service has ended, hangs or cannot be reached."
        "{{ else }}{{ $labels.instance }} answers, but not with the metrics of this service: "
        "something else listens there.{{ end }}",
        dashboard="sd-service",
    )


def _service_restarting(windows: Windows) -> Alert:
    """Return the alert on a service that a supervisor starts again and again.

    Each time it is gone for less than SDTargetDown waits, and up for less than SDNotReady.
    """
    return Alert(
        name="SDServiceRestarting",
        severity=Severity.PAGE,
        expr=f"changes(process_start_time_seconds{{{JOB}}}[{windows.starts}]) > {STARTS_TO_PAGE}",
        at_once="the count already spans the whole window.",
        keeping=windows.outage_keep,
        summary=f"{INSTANCE} keeps restarting",
        description=f"The service was started {COUNT} times in {windows.starts}. It ends soon "
        "after each start; requests that are not stored as jobs are lost each time.",
        dashboard="sd-service",
    )


def _without_another(state: str) -> str:
    """Return PromQL that is true for an engine in ``state`` where no other works or may soon.

    One of several is a ticket, SDEngineLost; where the others come to nothing, SDNotReady pages.
    """
    return f"""
        max by (job, instance, engine) (sd_engine_state{{state="{state}"}}) == 1
        unless on (job, instance)
          max by (job, instance) (sd_engine_state{{state=~"ready|loading|restarting"}}) == 1
    """


def _model_not_loaded(windows: Windows) -> Alert:
    return Alert(
        name="SDModelNotLoaded",
        severity=Severity.PAGE,
        expr=_without_another("failed"),
        lasting=windows.failed_for,
        keeping=windows.outage_keep,
        summary=f"{ENGINE} cannot load its model",
        description=f"{ENGINE} gave up loading the model and does not try again. No other engine "
        "is ready, so every request is refused with 503. /health says why.",
        dashboard="sd-service",
    )


def _circuit_open(windows: Windows) -> Alert:
    return Alert(
        name="SDEngineCircuitOpen",
        severity=Severity.PAGE,
        expr=_without_another("circuit_open"),
        lasting=windows.failed_for,
        keeping=windows.outage_keep,
        summary=f"{ENGINE} gets no new work",
        description=f"{ENGINE} ended again and again without finishing a job. No other engine is "
        "ready, so new work is refused with 503 engine_unavailable. The service tries accepted "
        "jobs one at a time; the first that finishes ends this.",
        dashboard="sd-service",
    )


def _not_ready(windows: Windows) -> Alert:
    """Leave out a service whose every engine failed to load its model: that alert says more.

    Without the last known state, one scrape that fails would begin the time anew.
    """
    return Alert(
        name="SDNotReady",
        severity=Severity.PAGE,
        expr=f"""
            last_over_time(sd_ready[{windows.ready_gap}]) == 0
            unless on (job, instance)
              min by (job, instance) (
                last_over_time(sd_engine_state{{state="failed"}}[{windows.ready_gap}])
              ) == 1
        """,
        lasting=windows.ready_for,
        keeping=windows.outage_keep,
        summary=f"{INSTANCE} is not ready",
        description=f"{INSTANCE} runs, but has not been able to work on requests for "
        f"{windows.ready_for}: the model still loads, the engine does not come back, or the "
        "service is stopping and does not end.",
        dashboard="sd-service",
    )


def _engine_restarting(windows: Windows) -> tuple[Alert, Alert]:
    again = f"increase(sd_engine_restarts_total[{windows.restarts}])"
    return (
        Alert(
            name="SDEngineRestarting",
            severity=Severity.PAGE,
            expr=f"sum by (job, instance, engine) ({again}) > {RESTARTS_TO_PAGE}",
            at_once="the count already spans the whole window.",
            keeping=windows.outage_keep,
            summary=f"{ENGINE} keeps crashing",
            description=f"The engine was started again {COUNT} times in {windows.restarts}. "
            "Each time, what it worked on is lost and done again, until a "
            "request has used up its attempts and fails.",
            dashboard="sd-service",
        ),
        Alert(
            name="SDEngineRestarting",
            severity=Severity.TICKET,
            expr=f"sum by (job, instance, engine, reason) ({again}) > 0",
            at_once="one restart is an event, and over when it is seen.",
            summary=f"{ENGINE} was started again ({{{{ $labels.reason }}}})",
            description="The engine ended without being asked ({{ $labels.reason }}) and was "
            "started again; requests that it worked on were run again. "
            f"Times in the last {windows.restarts}: {COUNT}.",
            dashboard="sd-service",
        ),
    )
