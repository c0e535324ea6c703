"""Several models: whether an engine spends its time on loading them."""

from alerts.rule import ENGINE, Alert, Severity
from alerts.windows import Windows

MOST_SHARE = 0.1
"""Share of the time that loading takes."""

MOST_LOADS = 6
"""In half an hour: fewer are no switching, however long one takes."""

BY = "by (job, instance, engine)"


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the one alert: models take turns in memory all the time."""
    window = windows.memory_repeated
    loads = f"sum {BY} (increase(sd_model_load_seconds_count[{window}]))"
    return (
        Alert(
            name="SDModelsThrashing",
            severity=Severity.TICKET,
            expr=f"""
sum {BY} (rate(sd_model_load_seconds_sum[{window}])) > {MOST_SHARE}
  and {loads} > {MOST_LOADS}
""",
            lasting=windows.memory_near_for,
            summary=f"{ENGINE} unloads models and loads them again",
            description=f"In the last {window} {{{{ $value | humanizePercentage }}}} of the time "
            "went into loading models that do not fit into memory together. Requests wait for "
            "them: give the engine more memory (HOST_CACHE_GB), or offer fewer models.",
            dashboard="sd-gpu",
        ),
    )
