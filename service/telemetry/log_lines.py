"""The count of log lines that were dropped, for a scrape."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from service.telemetry import stderr
from service.telemetry.definitions import LOG_LINES_DROPPED


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
