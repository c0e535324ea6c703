"""The GPUs as their driver reports them."""

from typing import Final

from alerts.rule import COUNT, ENGINE, INSTANCE, Alert, Severity
from alerts.windows import Windows

HOT_CELSIUS: Final = 85
"""Where the driver does not say at what temperature it slows the GPU down."""
MARGIN_CELSIUS: Final = 5
"""Below that temperature, to have time to act."""
UNDER_LOAD: Final = 0.5
"""Clocks of an idle GPU are low anyway."""
HELD_DOWN: Final = "hw_slowdown|hw_thermal|power_brake|sw_thermal"
"""Not the power cap: most GPUs work at it all day."""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the alerts, the ones that silence others first."""
    return (
        _lost(windows),
        _unused(windows),
        _collector(windows),
        _xid(windows),
        _ecc(windows),
        _hot(windows),
        _throttled(windows),
    )


def _lost(windows: Windows) -> Alert:
    return Alert(
        name="SDGpuLost",
        severity=Severity.PAGE,
        expr="sd_gpu_lost == 1",
        lasting=windows.gpu_lost_for,
        summary=f"{INSTANCE} lost a GPU",
        description="The driver no longer reaches {{ $labels.gpu }}, which was there before."
        " What runs on it fails; usually only a reset or a reboot brings it back.",
        dashboard="sd-gpu",
    )


def _unused(windows: Windows) -> Alert:
    """Return the alert on an engine that fell back to the CPU, which is slow and no error."""
    return Alert(
        name="SDComputesOnCpu",
        severity=Severity.TICKET,
        expr=f"""
            sd_model_info{{device="cpu"}} == 1
            and on (job, instance)
              count by (job, instance) (
                last_over_time(sd_model_info{{device!="cpu"}}[{windows.gpu_before}])
              )
        """,
        at_once="the device is chosen once, when the engine starts.",
        summary=f"{ENGINE} computes on the CPU and had a GPU before",
        description="The engine found no GPU and computes {{ $labels.model_id }} on the CPU: "
        "images take many times as long. The service had a GPU within the last "
        f"{windows.gpu_before}.",
        dashboard="sd-gpu",
    )


def _collector(windows: Windows) -> Alert:
    return Alert(
        name="SDGpuCollectorBroken",
        severity=Severity.TICKET,
        expr=f"""
            time() - sd_gpu_collector_last_success_timestamp_seconds > {windows.gpu_silent.number}
            or sd_gpu_collector_up == 0
        """,
        lasting=windows.gpu_silent_for,
        summary=f"{INSTANCE} cannot read a GPU",
        description="{{ if eq $value 0.0 }}Reading a GPU fails{{ else }}A GPU was last read "
        "{{ $value | humanizeDuration }} ago{{ end }}: its memory, temperature, throttling and "
        "faults are not known, and their alerts cannot fire.",
        dashboard="sd-gpu",
    )


def _xid(windows: Windows) -> Alert:
    """Return the alert; the first fault of a number is the birth of a series, see memory.py."""
    window = windows.gpu_fault
    return Alert(
        name="SDGpuXid",
        severity=Severity.TICKET,
        expr=f"""
            increase(sd_gpu_xid_errors_total[{window}]) > 0
            or (
              (sd_gpu_xid_errors_total > 0 unless sd_gpu_xid_errors_total offset {window})
              and on (job, instance, gpu)
                time() - sd_gpu_xid_last_timestamp_seconds < {window.number}
            )
        """,
        at_once="a fault is an event, and over when it is seen.",
        summary=f"A GPU of {INSTANCE} reported fault XID {{{{ $labels.xid }}}}",
        description="The driver reported XID {{ $labels.xid }} for {{ $labels.gpu }}. What it "
        "means, and whether the GPU must be reset or replaced, is in the runbook. "
        f"Times in the last {window}: {COUNT}.",
        dashboard="sd-gpu",
    )


def _ecc(windows: Windows) -> Alert:
    window = windows.gpu_fault
    return Alert(
        name="SDGpuEccErrors",
        severity=Severity.TICKET,
        expr=f"""
            sum by (job, instance, gpu) (
              increase(sd_gpu_ecc_errors_total{{kind="uncorrected"}}[{window}])
            ) > 0
        """,
        at_once="an error that could not be corrected has already spoilt something.",
        summary=f"GPU memory of {INSTANCE} lost data",
        description="{{ $labels.gpu }} had memory errors that could not be corrected. Images of "
        f"that time may be wrong. Errors in the last {window}: {COUNT}.",
        dashboard="sd-gpu",
    )


def _hot(windows: Windows) -> Alert:
    return Alert(
        name="SDGpuHot",
        severity=Severity.TICKET,
        expr=f"""
            sd_gpu_temperature_celsius
              >= on (job, instance, gpu) sd_gpu_temperature_slowdown_celsius - {MARGIN_CELSIUS}
            or (
              sd_gpu_temperature_celsius >= {HOT_CELSIUS}
              unless on (job, instance, gpu) sd_gpu_temperature_slowdown_celsius
            )
        """,
        lasting=windows.gpu_hot_for,
        summary=f"A GPU of {INSTANCE} is hot",
        description="{{ $labels.gpu }} is at {{ $value }} °C, near where it slows itself down.",
        dashboard="sd-gpu",
    )


def _throttled(windows: Windows) -> Alert:
    window = windows.gpu
    return Alert(
        name="SDGpuThrottled",
        severity=Severity.TICKET,
        expr=f"""
            avg_over_time(sd_gpu_throttled{{reason=~"{HELD_DOWN}"}}[{window}]) > {UNDER_LOAD}
            and on (job, instance, gpu)
              avg_over_time(sd_gpu_utilization_ratio[{window}]) > {UNDER_LOAD}
        """,
        lasting=windows.gpu_throttled_for,
        summary=f"A GPU of {INSTANCE} is throttled ({{{{ $labels.reason }}}})",
        description="While working, {{ $labels.gpu }} was throttled by {{ $labels.reason }} for "
        "{{ $value | humanizePercentage }} of the time: images take longer than necessary.",
        dashboard="sd-gpu",
    )
