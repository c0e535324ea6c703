"""Models and adapters (LoRA files): whether an engine spends its time on loading them."""

from typing import Final

from alerts.rule import COUNT, ENGINE, Alert, Severity
from alerts.windows import Windows

MOST_SHARE: Final = 0.1
"""Share of the time that loading takes."""

MOST_LOADS: Final = 6
"""In half an hour: fewer are no switching, however long one takes."""

MOST_EVICTIONS: Final = 30
"""In half an hour: one a minute."""

BY: Final = "by (job, instance, engine)"


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_models(windows), _adapters(windows))


def _models(windows: Windows) -> Alert:
    window = windows.memory_repeated
    loads = f"sum {BY} (increase(sd_model_load_seconds_count[{window}]))"
    return Alert(
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
    )


def _adapters(windows: Windows) -> Alert:
    window = windows.memory_repeated
    return Alert(
        name="SDAdaptersThrashing",
        severity=Severity.TICKET,
        expr=f"""
sum {BY} (increase(sd_adapter_evictions_total[{window}])) > {MOST_EVICTIONS}
""",
        lasting=windows.memory_near_for,
        summary=f"{ENGINE} drops adapters and loads them again",
        description=f"In the last {window} {COUNT} adapters were dropped from memory to make "
        "room for others. Requests wait for them to be loaded again: raise LORA_HOST_GB, and "
        "on a GPU LORA_GPU_GB.",
        dashboard="sd-gpu",
    )
