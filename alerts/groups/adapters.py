"""Adapters (LoRA files): whether their memory is too small for what requests use."""

from alerts.rule import COUNT, ENGINE, Alert, Severity
from alerts.windows import Windows

MOST = 30
"""Evictions in half an hour: one a minute."""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the one alert: adapters are dropped all the time, and read again."""
    window = windows.memory_repeated
    return (
        Alert(
            name="SDAdaptersThrashing",
            severity=Severity.TICKET,
            expr=f"""
sum by (job, instance, engine) (increase(sd_adapter_evictions_total[{window}])) > {MOST}
""",
            lasting=windows.memory_near_for,
            summary=f"{ENGINE} drops adapters and loads them again",
            description=f"In the last {window} {COUNT} adapters were dropped from memory to make "
            "room for others. Requests wait for them to be loaded again: raise LORA_HOST_GB, and "
            "on a GPU LORA_GPU_GB.",
            dashboard="sd-gpu",
        ),
    )
