"""Metrics of a cluster, as the service sees it; a service without one has none of them."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client.registry import Collector

from service.telemetry.definitions import CLUSTER, Family, Values

EngineStatus = Literal["answering", "late", "lost", "leaving"]
STATUSES: Final[tuple[EngineStatus, ...]] = ("answering", "late", "lost", "leaving")
HERE: Final[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class EngineLease:
    """How an engine of the cluster answers."""

    slot: str
    """Name of its slot, which is the label ``engine`` of its other metrics."""
    status: EngineStatus
    """``late`` gets no new jobs; the jobs of one that is ``lost`` run elsewhere."""
    age: float
    """Seconds since it last answered."""


class ClusterMetrics(Collector):
    """What the source of the engines counts and sees; each scrape shows it as it is then."""

    def __init__(
        self,
        leases: Callable[[], Iterable[EngineLease]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up. ``leases`` is asked at each scrape, on the event loop."""
        self.driver_up = False
        """Whether the driver answers."""
        self.driver_restarts = 0
        """Times it ended by itself and was started again."""
        self.nodes = 0
        """Machines with engines, as the driver saw them last."""
        self.places = 0
        """Engines that these offer."""
        self.engines_lost = 0
        """Engines that left without a drain of their node."""
        self.jobs_adopted = 0
        """Jobs that their engine continued while the service could not reach it."""
        self.batches = 0
        """Messages with events that came from engines."""
        self.events = 0
        """Events in them."""
        self._leases, self._clock = leases, clock
        self._seen = clock()

    def saw(self, *, nodes: int, places: int) -> None:
        """Note what the driver sees of the cluster."""
        self.nodes, self.places, self._seen = nodes, places, self._clock()

    def describe(self) -> Iterable[Family]:
        """Return every family, so that a second one of the name is refused."""
        return [definition.family({}) for definition in CLUSTER]

    def collect(self) -> Iterator[Family]:
        """Return the families that have a value now."""
        found = self._values()
        for definition in CLUSTER:
            filled = definition.family(found[definition.name])
            if filled.samples:
                yield filled

    def _values(self) -> dict[str, Values]:
        leases = list(self._leases())
        counts: Values = {
            (status,): sum(lease.status == status for lease in leases) for status in STATUSES
        }
        return {
            "sd_cluster_driver_up": {HERE: self.driver_up},
            "sd_cluster_driver_restarts_total": {HERE: self.driver_restarts},
            "sd_cluster_seen_age_seconds": {HERE: self._clock() - self._seen},
            "sd_cluster_nodes": {HERE: self.nodes},
            "sd_cluster_places": {HERE: self.places},
            "sd_cluster_engines_lost_total": {HERE: self.engines_lost},
            "sd_cluster_engines": counts,
            "sd_cluster_lease_age_seconds": {(lease.slot,): lease.age for lease in leases},
            "sd_cluster_jobs_adopted_total": {HERE: self.jobs_adopted},
            "sd_cluster_event_batches_total": {HERE: self.batches},
            "sd_cluster_events_total": {HERE: self.events},
        }
