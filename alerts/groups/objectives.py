"""The service's objectives: what of the error budget is spent, and how fast.

Windows and burn rates are those of the Site Reliability Workbook, chapter 5; the series
have the names that Sloth gives them, so that dashboards made for it work here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from alerts.rule import INSTANCE, Alert, Group, Recording, Severity
from alerts.windows import Span, Windows
from service.telemetry.labels import SERVICE_FAULTS

SERVICE: Final = "sd-api"
FEWEST_ERRORS: Final = 5
"""In the long window of a pair. On a quiet service a single failure is a high rate of errors
and no reason to wake anyone; a service that is all broken reaches this within five requests."""

REFUSED: Final = f"""\
increase(sd_requests_refused_total{{
    reason=~"{"|".join(SERVICE_FAULTS)}"
  }}[$window])"""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A promise to users; ``bad`` and ``events`` are PromQL with the window as ``$window``."""

    name: str
    ratio: float
    bad: str
    events: str
    """All of them, good and bad."""
    burn_alert: str
    """The name of its alerts, before ``Fast`` and ``Slow``."""
    meaning: str
    """What one error is, as part of a sentence."""

    @property
    def budget(self) -> float:
        """Share of events that may be errors."""
        return round(1 - self.ratio, 6)


OBJECTIVES: Final = (
    Objective(
        name="availability",
        ratio=0.99,
        # The series differ in their labels, so that "or" joins all of them, those that are there.
        bad=f"""\
sum by (job, instance) (
  increase(sd_jobs_total{{outcome=~"failed|timed_out"}}[$window])
  or {REFUSED}
  or increase(sd_answers_failed_total[$window])
)""",
        # A job whose answer failed has succeeded: it is one of these already.
        events=f"""\
sum by (job, instance) (
  increase(sd_jobs_total{{outcome=~"succeeded|failed|timed_out"}}[$window])
  or {REFUSED}
)""",
        burn_alert="SDErrorBudgetBurn",
        meaning="jobs that failed, timed out, were refused or could not be answered",
    ),
    Objective(
        name="latency",
        ratio=0.95,
        bad="""\
sum by (job, instance) (
  increase(sd_job_duration_seconds_count{outcome="succeeded"}[$window])
)
- sum by (job, instance) (
  increase(sd_job_duration_seconds_bucket{outcome="succeeded", le="30.0"}[$window])
)""",
        events="""\
sum by (job, instance) (
  increase(sd_job_duration_seconds_count{outcome="succeeded"}[$window])
)""",
        burn_alert="SDLatencyBudgetBurn",
        meaning="images that took longer than 30 seconds",
    ),
)

FAST: Final = ((14.4, "1h", "5m"), (6.0, "6h", "30m"))
"""Burn rate, long and short window: 2 % of a month's budget in an hour, 5 % in six."""
SLOW: Final = ((3.0, "1d", "2h"), (1.0, "3d", "6h"))
"""10 % of a month's budget in a day, or in three."""


def spans(windows: Windows) -> dict[str, Span]:
    """Return the burn windows by the name that their series bear."""
    return {
        "5m": windows.burn_5m,
        "30m": windows.burn_30m,
        "1h": windows.burn_1h,
        "2h": windows.burn_2h,
        "6h": windows.burn_6h,
        "1d": windows.burn_1d,
        "3d": windows.burn_3d,
    }


def groups(windows: Windows) -> list[Group]:
    """Return the rules of every objective; the series before the alerts that read them."""
    return [
        group
        for objective in OBJECTIVES
        for group in (
            Group(
                name=f"sd-objective-{objective.name}",
                interval=windows.interval,
                rules=(*_ratios(objective, windows), *_alerts(objective)),
            ),
            Group(
                name=f"sd-objective-{objective.name}-period",
                interval=windows.period_interval,
                rules=tuple(_period(objective, windows)),
            ),
        )
    ]


def _labels(objective: Objective) -> dict[str, str]:
    return {
        "sloth_id": f"{SERVICE}-{objective.name}",
        "sloth_service": SERVICE,
        "sloth_slo": objective.name,
    }


def series(name: str, labels: Mapping[str, str]) -> str:
    """Return the selector of a series by labels."""
    return f"{name}{{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def _ratios(objective: Objective, windows: Windows) -> Iterator[Recording]:
    labels = _labels(objective)
    mine = {"sloth_id": labels["sloth_id"]}
    for name, window in spans(windows).items():
        bad, all_of_them = (
            text.replace("$window", str(window)) for text in (objective.bad, objective.events)
        )
        errors, events = f"instance:sd_errors:increase{name}", f"instance:sd_events:increase{name}"
        yield Recording(name=errors, expr=bad, labels=labels)
        yield Recording(name=events, expr=all_of_them, labels=labels)
        yield Recording(
            name=f"slo:sli_error:ratio_rate{name}",
            expr=_ratio(series(errors, mine), series(events, mine)),
            labels=labels,
        )
    for name, value in (
        ("slo:objective:ratio", objective.ratio),
        ("slo:error_budget:ratio", objective.budget),
        ("slo:time_period:days", 30),
    ):
        yield Recording(name=name, expr=f"vector({value})", labels=labels)
    yield Recording(
        name="slo:current_burn_rate:ratio",
        expr=f"{series('slo:sli_error:ratio_rate5m', mine)} / {objective.budget}",
        labels=labels,
    )
    yield Recording(
        name="sloth_slo_info",
        expr="vector(1)",
        labels={**labels, "sloth_objective": f"{objective.ratio * 100:g}"},
    )


def _period(objective: Objective, windows: Windows) -> Iterator[Recording]:
    """Sum what was recorded: a month of raw samples is too much to read each time.

    Errors and events are summed apart. The mean of the ratios, which Sloth takes, would let
    one failure in a quiet night weigh as much as a hundred at noon.
    """
    labels = _labels(objective)
    mine = {"sloth_id": labels["sloth_id"]}
    errors, events = (
        f"sum_over_time({series(f'instance:sd_{what}:increase5m', mine)}[{windows.period}])"
        for what in ("errors", "events")
    )
    yield Recording(name="slo:sli_error:ratio_rate30d", expr=_ratio(errors, events), labels=labels)
    yield Recording(
        name="slo:period_burn_rate:ratio",
        expr=f"{series('slo:sli_error:ratio_rate30d', mine)} / {objective.budget}",
        labels=labels,
    )
    yield Recording(
        name="slo:period_error_budget_remaining:ratio",
        expr=f"1 - {series('slo:period_burn_rate:ratio', mine)}",
        labels=labels,
    )


def _ratio(errors: str, events: str) -> str:
    """Divide; without an event there is no error, and 0 / 0 would be no number."""
    return f"{errors}\n/ ({events} > 0)\nor 0 * {events}"


def _alerts(objective: Objective) -> Iterator[Alert]:
    for suffix, severity, pairs, urgency in (
        ("Fast", Severity.PAGE, FAST, "At this rate it is gone in days."),
        ("Slow", Severity.TICKET, SLOW, "If it goes on, it is gone before the month is over."),
    ):
        yield Alert(
            name=f"{objective.burn_alert}{suffix}",
            severity=severity,
            expr="\nor\n".join(_burns(objective, *pair) for pair in pairs),
            at_once="the short window of each pair ends it soon after the errors end.",
            summary=f"{INSTANCE} spends its {objective.name} budget "
            '{{ $value | printf "%.1f" }} times too fast',
            description=f"There are too many {objective.meaning}: the error budget of 30 days "
            f"({objective.budget:.0%} of all) is being spent at "
            '{{ $value | printf "%.1f" }} times the rate it can bear. ' + urgency,
            dashboard="sd-service",
        )


def _burns(objective: Objective, rate: float, long: str, short: str) -> str:
    mine = {"sloth_id": _labels(objective)["sloth_id"]}
    return f"""\
(
  {series(f"slo:sli_error:ratio_rate{long}", mine)} / {objective.budget} > {rate:g}
  and {series(f"slo:sli_error:ratio_rate{short}", mine)} / {objective.budget} > {rate:g}
  and {series(f"instance:sd_errors:increase{long}", mine)} >= {FEWEST_ERRORS}
)"""
