"""All faults, the gentle ones first."""

from typing import Final

from scripts.drill import engine_faults, gpu_faults, job_faults, memory_faults, queue_faults
from scripts.drill.scene import FAULTS, Fault

ALL: Final[list[Fault]] = [
    fault
    for module in (memory_faults, queue_faults, job_faults, gpu_faults, engine_faults)
    for fault in FAULTS
    if fault.commit.__module__ == module.__name__
]

EXCUSED: Final = {
    "SDComputesOnCpu": "no GPU is taken away here: the engine of a drill computes on the CPU",
    "SDMonitoringBroken": "without Alertmanager or its receiver nothing can be seen to arrive",
}
"""Alerts that no fault of a drill can raise, and why; their cases in alerts/tests stand alone."""
