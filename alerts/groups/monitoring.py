"""Whether the monitoring itself works, as far as it can still say so."""

from typing import Final

from alerts.rule import INSTANCE, Alert, Severity
from alerts.windows import Windows

COUNTED: Final = (
    ("rules", "prometheus_rule_evaluation_failures_total"),
    ("dropped", "prometheus_notifications_dropped_total"),
    ("delivery", "alertmanager_notifications_failed_total"),
)
"""What went wrong, and the counter that says so."""
RELOADED: Final = (
    "prometheus_config_last_reload_successful",
    "alertmanager_config_last_reload_successful",
)
WATCHED: Final = "alertmanager|node|dcgm"
"""Jobs next to the service; one without a target is not installed and no fault."""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the one alert; its instance is a part of the monitoring, none of the service."""
    faults = [
        *(
            _named(f"sum by (job, instance) (increase({counter}[{windows.monitoring}]))", name)
            + " > 0"
            for name, counter in COUNTED
        ),
        *(_named(metric, "reload") + " == 0" for metric in RELOADED),
        _named(f'up{{job=~"{WATCHED}"}}', "down") + " == 0",
    ]
    return (
        Alert(
            name="SDMonitoringBroken",
            severity=Severity.TICKET,
            expr="\nor\n".join(faults),
            lasting=windows.monitoring_for,
            summary=f"The monitoring is broken at {{{{ $labels.job }}}} {INSTANCE}"
            " ({{ $labels.fault }})",
            description="{{ $labels.job }} at {{ $labels.instance }} does not do its work "
            "({{ $labels.fault }}): alerts may not fire or may reach nobody. What the word means "
            "is in the runbook.",
            dashboard="sd-service",
        ),
    )


def _named(expr: str, fault: str) -> str:
    return f'label_replace({expr}, "fault", "{fault}", "", "")'
