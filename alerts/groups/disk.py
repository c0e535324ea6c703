"""Space for models and results."""

from typing import Final

from alerts.rule import INSTANCE, Alert, Severity
from alerts.windows import Windows

NEARLY_FULL: Final = 0.05
MAY_FILL: Final = 0.3
"""With more than that free, a trend of some hours is no reason to act."""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the one alert: nearly full, or full before long."""
    free = "sd_disk_free_bytes / (sd_disk_size_bytes > 0)"
    return (
        Alert(
            name="SDDiskFilling",
            severity=Severity.TICKET,
            expr=f"""
                {free} < {NEARLY_FULL}
                or (
                  {free} < {MAY_FILL}
                  and predict_linear(
                    sd_disk_free_bytes[{windows.disk}], {windows.disk_ahead.number}
                  ) < 0
                )
            """,
            lasting=windows.disk_for,
            summary=f"The disk for {{{{ $labels.volume }}}} of {INSTANCE} is filling",
            description="{{ $value | humanizePercentage }} of the disk for {{ $labels.volume }} "
            f"is free, and it is nearly full or will be full within {windows.disk_ahead}.",
            dashboard="sd-gpu",
        ),
    )
