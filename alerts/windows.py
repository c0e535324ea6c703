"""Every duration of the rules, once for production and once for a drill of minutes."""

from dataclasses import dataclass
from typing import Final

UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


@dataclass(frozen=True)
class Span:
    """A length of time, as PromQL writes it and as a number."""

    seconds: int

    def __str__(self) -> str:
        """Return it as a duration, for example ``5m`` or ``1d``."""
        unit, size = next(row for row in UNITS if self.seconds % row[1] == 0)
        return f"{self.seconds // size}{unit}"

    @property
    def number(self) -> str:
        """It in seconds, to compare with a difference of timestamps."""
        return str(self.seconds)


def span(text: str) -> Span:
    """Return the span that ``text`` says, a whole number and one of s, m, h and d."""
    return Span(int(text[:-1]) * dict(UNITS)[text[-1]])


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The durations of all rules; thresholds are no part of it and never change.

    Names that end in ``_for`` are how long a condition must last before its alert fires.
    """

    interval: Span
    """Between two evaluations."""
    period_interval: Span
    """The same for the error budget of the whole period, which reads much and moves slowly."""

    burn_5m: Span
    burn_30m: Span
    burn_1h: Span
    burn_2h: Span
    burn_6h: Span
    burn_1d: Span
    burn_3d: Span
    period: Span
    """What the objectives are promised over."""

    down_for: Span
    ready_for: Span
    ready_gap: Span
    """How long the last known state counts when a scrape fails: no longer than ``ready_for``."""
    failed_for: Span
    outage_keep: Span
    """How long the cause of an outage is named after its end. Its errors stand in the short
    windows of what pages until then: longer than ``burn_30m`` by a few evaluations."""
    restarts: Span
    """Over which restarts of the engine are counted."""
    starts: Span
    """The same for the whole service."""

    engine_lost_for: Span
    """Longer than several engines take to load their model one after another."""
    engine_missed: Span
    """How long an engine that a machine took with it is news: longer than ``engine_lost_for``."""
    balance: Span
    """Over which the work of the engines is compared."""
    balance_for: Span
    leases_for: Span

    memory: Span
    """How long one shortage of memory is news."""
    memory_repeated: Span
    memory_near_for: Span

    depth_for: Span
    wait: Span
    wait_for: Span
    stuck: Span
    stuck_for: Span

    step_now: Span
    step_before: Span
    step_offset: Span
    """How long ago the window ended that a step's time is compared with."""
    step_for: Span

    gpu: Span
    """Over which readings of the GPU are averaged."""
    gpu_hot_for: Span
    gpu_throttled_for: Span
    gpu_lost_for: Span
    gpu_fault: Span
    """How long one fault of the GPU is news."""
    gpu_silent: Span
    gpu_silent_for: Span
    gpu_before: Span
    """How long it is remembered that the service computed on a GPU."""

    store: Span
    """Over which failures of the job store are counted."""
    store_for: Span
    webhooks: Span
    """Over which deliveries are counted."""
    webhooks_for: Span

    clients: Span
    """Over which the requests of clients are counted."""
    clients_for: Span

    log: Span
    """How long dropped log lines are news."""

    monitoring: Span
    """How long one failure of the monitoring is news."""
    monitoring_for: Span

    threads_for: Span

    disk: Span
    """From which the disk's future is drawn."""
    disk_ahead: Span
    disk_for: Span


NORMAL: Final = Windows(
    interval=span("30s"),
    period_interval=span("2m"),
    burn_5m=span("5m"),
    burn_30m=span("30m"),
    burn_1h=span("1h"),
    burn_2h=span("2h"),
    burn_6h=span("6h"),
    burn_1d=span("1d"),
    burn_3d=span("3d"),
    period=span("30d"),
    down_for=span("1m"),
    ready_for=span("5m"),
    ready_gap=span("2m"),
    failed_for=span("30s"),
    outage_keep=span("32m"),
    restarts=span("15m"),
    starts=span("15m"),
    engine_lost_for=span("10m"),
    engine_missed=span("1h"),
    balance=span("10m"),
    balance_for=span("5m"),
    leases_for=span("5m"),
    memory=span("15m"),
    memory_repeated=span("30m"),
    memory_near_for=span("10m"),
    depth_for=span("5m"),
    wait=span("5m"),
    wait_for=span("10m"),
    stuck=span("5m"),
    stuck_for=span("2m"),
    step_now=span("30m"),
    step_before=span("1d"),
    step_offset=span("1d"),
    step_for=span("15m"),
    gpu=span("5m"),
    gpu_hot_for=span("5m"),
    gpu_throttled_for=span("10m"),
    gpu_lost_for=span("30s"),
    gpu_fault=span("1h"),
    gpu_silent=span("2m"),
    gpu_silent_for=span("5m"),
    gpu_before=span("1d"),
    store=span("5m"),
    store_for=span("1m"),
    webhooks=span("1h"),
    webhooks_for=span("5m"),
    clients=span("30m"),
    clients_for=span("5m"),
    log=span("15m"),
    monitoring=span("15m"),
    monitoring_for=span("5m"),
    threads_for=span("5m"),
    disk=span("6h"),
    disk_ahead=span("1d"),
    disk_for=span("30m"),
)
"""For a scrape every 15 s."""

SHORT: Final = Windows(
    interval=span("1s"),
    period_interval=span("2s"),
    burn_5m=span("5s"),
    burn_30m=span("8s"),
    burn_1h=span("10s"),
    burn_2h=span("12s"),
    burn_6h=span("15s"),
    burn_1d=span("20s"),
    burn_3d=span("30s"),
    period=span("10m"),
    down_for=span("3s"),
    ready_for=span("8s"),
    ready_gap=span("4s"),
    failed_for=span("2s"),
    outage_keep=span("10s"),
    restarts=span("15s"),
    starts=span("30s"),
    engine_lost_for=span("6s"),
    engine_missed=span("15s"),
    balance=span("10s"),
    balance_for=span("3s"),
    leases_for=span("3s"),
    memory=span("10s"),
    memory_repeated=span("20s"),
    memory_near_for=span("5s"),
    depth_for=span("3s"),
    wait=span("8s"),
    wait_for=span("3s"),
    stuck=span("8s"),
    stuck_for=span("3s"),
    step_now=span("12s"),
    step_before=span("20s"),
    step_offset=span("30s"),
    step_for=span("3s"),
    gpu=span("8s"),
    gpu_hot_for=span("4s"),
    gpu_throttled_for=span("3s"),
    gpu_lost_for=span("2s"),
    gpu_fault=span("15s"),
    gpu_silent=span("15s"),
    gpu_silent_for=span("4s"),
    gpu_before=span("30s"),
    store=span("8s"),
    store_for=span("2s"),
    webhooks=span("15s"),
    webhooks_for=span("2s"),
    clients=span("8s"),
    clients_for=span("3s"),
    log=span("15s"),
    monitoring=span("15s"),
    monitoring_for=span("5s"),
    threads_for=span("3s"),
    disk=span("30s"),
    disk_ahead=span("1m"),
    disk_for=span("4s"),
)
"""For a scrape every second: every alert fires and ends within some half a minute."""
