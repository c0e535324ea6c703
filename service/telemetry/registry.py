"""Registry of the metrics: builds each one and keeps its definition for the documents."""

from collections.abc import Iterable
from itertools import product
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from service.telemetry import stderr
from service.telemetry.definitions import CLUSTER, DISK, GPU, LOG_LINES_DROPPED, Definition, define
from service.telemetry.exposition import WrittenCounter, WrittenGauge, WrittenHistogram

Family = TypeVar("Family", bound=MetricWrapperBase)


class Reading(Gauge):
    """A gauge that has no series until it is set, and none after it is forgotten."""

    _known = False

    def set(self, value: float) -> None:
        """Show a value."""
        self._known = True
        super().set(value)

    def forget(self) -> None:
        """Show none: what it was read from is gone."""
        self._known = False

    def collect(self) -> Iterable[Metric]:
        """Return the family, unless nothing is known."""
        return [family for family in super().collect() if family.samples]

    def _child_samples(self) -> Iterable[Sample]:
        return super()._child_samples() if self._known else ()


class DroppedLines(Collector):
    """Shows at each scrape what ``stderr`` has counted.

    A counter of the client library has a lock that does not let its holder in twice, and lines
    are dropped wherever somebody logs: in a finalizer, too, in the midst of counting.
    """

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Return the family, so that a second one of the name is refused."""
        return self.collect()

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Return the family with its value now."""
        defined = LOG_LINES_DROPPED
        return [CounterMetricFamily(defined.name, defined.help, value=stderr.dropped())]


class Registry:
    """Metrics in a registry of their own.

    Labels are keywords, each with the values that are known beforehand. Label sets of known
    values start at 0: an ``increase()`` over a series that is born with its first event never
    sees that event.
    """

    def __init__(self) -> None:
        # A birth date with every series: a third of the scrape, which nothing here reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.collectors: list[Collector] = []
        self.definitions: list[Definition] = [*GPU, *DISK, *CLUSTER, LOG_LINES_DROPPED]
        self._families: dict[str, MetricWrapperBase] = {}
        self.watch(DroppedLines())
        # process_* as Prometheus names them everywhere: resident memory, CPU, start time.
        self.watch(ProcessCollector(registry=None))
        self.watch(PlatformCollector(registry=None))

    def watch(self, collector: Collector) -> None:
        """Show what ``collector`` gives at every scrape."""
        self.registry.register(collector)
        self.collectors.append(collector)

    def counter(self, name: str, text: str, **labels: Iterable[str]) -> Counter:
        """Return a counter."""
        return self._family(WrittenCounter, "counter", name, text, labels)

    def gauge(self, name: str, text: str, **labels: Iterable[str]) -> Gauge:
        """Return a gauge."""
        return self._family(WrittenGauge, "gauge", name, text, labels)

    def reading(self, name: str, text: str, **labels: Iterable[str]) -> Reading:
        """Return a gauge that is absent until it is set."""
        return self._family(Reading, "gauge", name, text, labels)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], **labels: Iterable[str]
    ) -> Histogram:
        """Return a histogram."""
        return self._family(WrittenHistogram, "histogram", name, text, labels, buckets=buckets)

    def _family(
        self,
        form: type[Family],
        kind: str,
        name: str,
        text: str,
        labels: dict[str, Iterable[str]],
        **more: Any,
    ) -> Family:
        """Return the family of this name; every engine asks for the same ones."""
        family = self._families.get(name)
        if not isinstance(family, form):
            self.definitions.append(define(name, kind, text, *labels))
            family = form(name, text, tuple(labels), registry=None, **more)
            self.watch(family)
            self._families[name] = family
        for values in product(*labels.values()) if labels else ():
            family.labels(*values)
        return family
