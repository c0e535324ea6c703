"""What metrics are called: the form of a definition, and those that collectors fill."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Family = CounterMetricFamily | GaugeMetricFamily
Values = Mapping[tuple[str, ...], float | None]
"""A value for each set of label values; None is shown as no series."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What a metric is, as the documentation lists it; ``name`` as it is scraped."""

    name: str
    kind: str
    """``counter``, ``gauge`` or ``histogram``."""
    help: str
    labels: tuple[str, ...] = ()

    def family(self, given: Values) -> Family:
        """Build the family that a collector shows, with the values that are known."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        made: Family = kind(self.name, self.help, labels=self.labels)
        for labels, value in given.items():
            if value is not None:
                made.add_metric(labels, value)
        return made


def define(name: str, kind: str, text: str, *labels: str) -> Definition:
    """Return a definition."""
    return Definition(name=name, kind=kind, help=text, labels=labels)


GPU: Final = (
    define("sd_gpu_info", "gauge", "1 for each GPU in use.", "gpu", "name", "driver"),
    define("sd_gpu_memory_used_bytes", "gauge", "Memory in use by all programs.", "gpu"),
    define("sd_gpu_memory_total_bytes", "gauge", "Memory of the GPU.", "gpu"),
    define("sd_gpu_utilization_ratio", "gauge", "Share of time in which a kernel ran.", "gpu"),
    define("sd_gpu_memory_utilization_ratio", "gauge", "Share of time memory was busy.", "gpu"),
    define("sd_gpu_temperature_celsius", "gauge", "Temperature of the chip.", "gpu"),
    define(
        "sd_gpu_temperature_slowdown_celsius",
        "gauge",
        "Temperature at which the GPU slows down.",
        "gpu",
    ),
    define("sd_gpu_power_watts", "gauge", "Power drawn now.", "gpu"),
    define("sd_gpu_power_limit_watts", "gauge", "Power limit in force.", "gpu"),
    define("sd_gpu_energy_joules_total", "counter", "Energy since the driver was loaded.", "gpu"),
    define("sd_gpu_clock_hertz", "gauge", "Clock by domain (sm, memory).", "gpu", "domain"),
    define("sd_gpu_throttled", "gauge", "1 while clocks are held down.", "gpu", "reason"),
    define("sd_gpu_ecc_errors_total", "counter", "Memory errors by kind.", "gpu", "kind"),
    define("sd_gpu_xid_errors_total", "counter", "Faults by number since start.", "gpu", "xid"),
    define(
        "sd_gpu_xid_last_timestamp_seconds", "gauge", "Time of the last fault; 0 for never.", "gpu"
    ),
    define("sd_gpu_lost", "gauge", "1 while a GPU that was there is gone.", "gpu"),
    define("sd_gpu_collector_up", "gauge", "1 while every GPU is read; absent without a driver."),
    define(
        "sd_gpu_collector_last_success_timestamp_seconds",
        "gauge",
        "Time of the last reading; of several GPUs, of the one that was last read the longest ago.",
    ),
    define("sd_gpu_collector_duration_seconds", "gauge", "Time the last reading of all GPUs took."),
)
"""Read from the driver; a figure that this GPU does not give is absent, never 0."""

CLUSTER: Final = (
    define("sd_cluster_driver_up", "gauge", "1 while the driver of the cluster answers."),
    define(
        "sd_cluster_driver_restarts_total",
        "counter",
        "Times the driver ended by itself and was started again.",
    ),
    define("sd_cluster_seen_age_seconds", "gauge", "Time since the driver last saw the cluster."),
    define("sd_cluster_nodes", "gauge", "Machines with engines, as the driver saw them last."),
    define("sd_cluster_places", "gauge", "Engines that these machines offer."),
    define(
        "sd_cluster_engines_lost_total",
        "counter",
        "Engines whose machine went without ending its jobs first.",
    ),
    define("sd_cluster_engines", "gauge", "Engines of the cluster by how they answer.", "status"),
    define(
        "sd_cluster_lease_age_seconds", "gauge", "Time since the engine last answered.", "engine"
    ),
    define(
        "sd_cluster_jobs_adopted_total",
        "counter",
        "Jobs that their engine continued while the service could not reach it.",
    ),
    define("sd_cluster_event_batches_total", "counter", "Messages with events from engines."),
    define("sd_cluster_events_total", "counter", "Events from engines, in all messages."),
)
"""Of a service with engines on other machines (``ENGINE=ray``); absent else."""

LOG_LINES_DROPPED: Final = define(
    "sd_log_lines_dropped_total",
    "counter",
    "Log lines dropped: their reader was too slow, absent or gone.",
)

DISK: Final = (
    define(
        "sd_disk_free_bytes",
        "gauge",
        "Free space of the file system, by what is kept there.",
        "volume",
    ),
    define("sd_disk_size_bytes", "gauge", "Size of the file system.", "volume"),
)
