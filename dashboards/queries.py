"""PromQL in small pieces: every selector keeps to the job and the instances chosen above."""

import re
from typing import Final

from prometheus_client.utils import floatToGoString

from dashboards.panel import DARK_RED, GREY, RED, Word, Words
from service.telemetry.labels import SERVICE_FAULTS
from service.telemetry.metrics import Metrics

CHOSEN: Final = 'job=~"$job", instance=~"$instance"'
OF_ENGINES: Final = {row.name for row in Metrics().definitions if "engine" in row.labels}
"""Metrics that every engine has, as they are scraped but for the endings of histograms."""

ENDING: Final = re.compile("_(bucket|sum|count)$")
OURS: Final = 'alertname=~"SD.+", alertname!="SDWatchdog"'
"""The service's alerts, without the one that always fires."""

BAD_OUTCOMES: Final = 'outcome=~"failed|timed_out"'
BAD_REFUSALS: Final = f'reason=~"{"|".join(SERVICE_FAULTS)}"'
"""What the availability objective counts as bad; the caller's own doing is not."""


def metric(name: str, *matchers: str) -> str:
    """Select the series of ``name`` that are chosen above."""
    engine = ('engine=~"$engine"',) if ENDING.sub("", name) in OF_ENGINES else ()
    return f"{name}{{{', '.join((CHOSEN, *engine, *matchers))}}}"


def rate(name: str, *matchers: str, by: str = "") -> str:
    """Sum the growth per second of a counter, over everything but ``by``."""
    return f"sum{_by(by)} (rate({metric(name, *matchers)}[$__rate_interval]))"


def grown(name: str, *matchers: str, by: str = "", over: str = "$__range") -> str:
    """Sum the growth of a counter in ``over``."""
    return f"sum{_by(by)} (increase({metric(name, *matchers)}[{over}]))"


def total(name: str, *matchers: str, by: str = "") -> str:
    """Sum a gauge over everything but ``by``."""
    return f"sum{_by(by)} ({metric(name, *matchers)})"


def most(name: str, *matchers: str, by: str = "") -> str:
    """Take the largest of a gauge over everything but ``by``."""
    return f"max{_by(by)} ({metric(name, *matchers)})"


def least(name: str, *matchers: str, by: str = "") -> str:
    """Take the smallest of a gauge over everything but ``by``."""
    return f"min{_by(by)} ({metric(name, *matchers)})"


def present(name: str) -> str:
    """Count the series there are; of a counter those that were there for two scrapes."""
    if name.endswith("_total"):
        return f"count(rate({metric(name)}[$__rate_interval]))"
    return f"count({metric(name)})"


def quantile(share: float, name: str, *matchers: str, by: str = "") -> str:
    """Estimate a quantile of a histogram, by linear interpolation in its bucket."""
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', *matchers, by=kept)})"


def mean(name: str, *matchers: str, by: str = "") -> str:
    """Divide a histogram's sum by its count."""
    return f"{rate(f'{name}_sum', *matchers, by=by)} / {rate(f'{name}_count', *matchers, by=by)}"


def short_gpu(expr: str) -> str:
    """Shorten UUIDs in the label ``gpu`` to what tells GPUs apart: ``GPU 1f0c93aa`` in a legend.

    It is how the full UUID begins, which tables and ``nvidia-smi -L`` show.
    """
    return f'label_replace({expr}, "gpu", "$1 $2", "gpu", "(GPU|MIG)-([0-9a-f]{{8}})-.+")'


NOT_THEN, NOT_NOW = -1, -2


def against_yesterday() -> str:
    """Compare the recorded times of a step as the alert does; or say which of the two lacks."""
    now, then = (
        metric(f"instance_size_class:sd_step_duration_seconds:mean_{when}")
        for when in ("now", "day_ago")
    )
    # The count is recorded with nothing to do as well: without it no rule is at work.
    counted = metric("instance_size_class:sd_steps:count_now")
    return "\nor ".join(
        (
            f"max({now} / ({then} > 0))",
            f"count({now}) * 0 + {NOT_THEN}",
            f"count({counted}) * 0 + {NOT_NOW}",
        )
    )


def between(name: str, above: float | None, most: float | None) -> str:
    """Count a histogram's observations in (above, most] during the time looked at."""
    upper = grown(f"{name}_bucket", _le(most))
    return upper if above is None else f"{upper} - {grown(f'{name}_bucket', _le(above))}"


def budget_left(which: str) -> str:
    """Say which share of the month's error budget is left, of the worst instance."""
    return least("slo:period_error_budget_remaining:ratio", *_objective(which))


def burn_rate(which: str, window: str) -> str:
    """Say how many times too fast the worst instance spends it, measured over ``window``."""
    errors = most(f"slo:sli_error:ratio_rate{window}", *_objective(which))
    # What may fail is a constant, recorded without an instance.
    return f"{errors} / max(slo:error_budget:ratio{{{', '.join(_objective(which))}}})"


NO_SENSOR, NO_DRIVER, BROKEN, DOWN = -1, -2, -3, -4

STATES: Final[Words] = {
    NO_SENSOR: Word(text="No sensor", color=GREY),
    NO_DRIVER: Word(text="No GPU driver", color=GREY),
    BROKEN: Word(text="COLLECTION BROKEN", color=RED),
    DOWN: Word(text="TARGET DOWN", color=DARK_RED),
}
"""What stands in place of a reading; only the first two are no fault."""


def sensor(reading: str) -> str:
    """Show ``reading``, which has no labels, or the number of the state that hinders it.

    Several instances: the worst hides the others, until it is cured or deselected. A GPU that is
    known to be lost does not hide the others of its instance.
    """
    up, collector = least("up"), least("sd_gpu_collector_up")
    lost = f"on (job, instance) ({metric('sd_gpu_lost')} == 1)"
    unexplained = f"min({metric('sd_gpu_collector_up')} unless {lost})"
    return "\nor ".join(
        (
            f"({up} == 0) - 4",
            f"({unexplained} == 0) - 3",
            f"({reading})",
            f"({collector} == 1) - 2",
            f"({up} == 1) - 3",
            "vector(-4)",
        )
    )


def _objective(which: str) -> tuple[str, str]:
    return 'sloth_service="sd-api"', f'sloth_slo="{which}"'


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _le(bound: float | None) -> str:
    # As it is exposed: a million is "1e+06", not "1000000.0".
    number = float("inf") if bound is None else bound
    return f'le="{floatToGoString(number)}"'  # type: ignore[no-untyped-call]
