"""The text of the metrics, in pieces between which others have their turn.

A metric of a thousand engines has 100,000 lines. Its values are read at once, so that they fit
each other; its text is then written piece by piece, from templates kept between scrapes.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from itertools import accumulate, zip_longest
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.openmetrics.exposition import _compose_exemplar_string
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

LINES: Final = 500
"""Most lines of a piece: some 40 kB."""


class Families(Collector):
    """Some families, to be written as if they were all."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families


class Format:
    """A text format: ``write`` is the encoder of the library, ``name`` its content type."""

    def __init__(self, write: Callable[[Collector], bytes], name: str) -> None:
        self._write, self.name = write, name
        self.end = write(Families()).decode()
        """OpenMetrics ends with a line of its own."""

        self.exemplars = bool(self.end)

    def text(self, family: Metric) -> str:
        """Return the text of one family."""
        return self._write(Families(family)).decode().removesuffix(self.end)

    def pieces(self, collectors: Iterable[Collector]) -> Iterator[str]:
        """Yield the text of all that is collected, in short pieces."""
        for collector in collectors:
            if isinstance(collector, Written):
                yield from collector.pieces(self)
            else:
                for family in collector.collect():
                    yield from self._pieces(family)
        yield self.end

    def _pieces(self, family: Metric) -> Iterator[str]:
        part, head = copy(family), ""
        for start in range(0, max(1, len(family.samples)), LINES):
            part.samples = family.samples[start : start + LINES]
            yield self.text(part).removeprefix(head)
            head = head or self.text(
                Metric(family.name, family.documentation, family.type, family.unit)
            )


class Written(MetricWrapperBase):
    """A metric whose label sets keep their text without the values, which is most of the work."""

    _template = ""
    _template_for = ""

    def pieces(self, form: Format) -> Iterator[str]:
        """Yield the text of this moment; what is counted between two pieces is in none of them."""
        children: list[Any] = [*self._metrics.values()] if self._labelnames else [self]
        read = [child.read() for child in children]
        yield form.text(self._family())
        for child, values in zip(children, read, strict=True):
            yield child.text(form, values)

    def text(self, form: Format, read: list[float]) -> str:
        """Return the lines of what was read."""
        if self._template_for != form.name:
            self._template, self._template_for = self._lines(form), form.name
        values = map(floatToGoString, self.shown(read))
        if form.exemplars:
            values = map("".join, zip_longest(values, self.exemplars(), fillvalue=""))
        return self._template % tuple(values)

    def read(self) -> list[float]:
        """Return what the lines are made of."""
        return [sample.value for sample in self._child_samples()]

    def shown(self, read: list[float]) -> Iterable[float]:
        """Return the values of the lines."""
        return read

    def exemplars(self) -> Iterable[str]:
        """Return what follows the values of the first lines."""
        return ()

    def _family(self) -> Metric:
        return Metric(self._name, self._documentation, self._type or "", self._unit)

    def _lines(self, form: Format) -> str:
        family = self._family()
        labels = dict(zip(self._labelnames, self._labelvalues, strict=True))
        for name, more, *_ in self._child_samples():
            family.add_sample(self._name + name, {**labels, **more}, 0)
        lines = form.text(family).removeprefix(form.text(self._family()))
        return lines.replace("%", "%%").replace(" 0.0\n", " %s\n")


class WrittenCounter(Written, Counter):
    """A counter."""

    def read(self) -> list[float]:
        """Return its count."""
        return [self._value.get()]


class WrittenGauge(Written, Gauge):
    """A gauge."""


class WrittenHistogram(Written, Histogram):
    """A histogram of what is never negative."""

    def read(self) -> list[float]:
        """Return its sum, and the counts between its bounds."""
        # Without the lock of each, which would be most of the time.
        return [self._sum.get(), *[bucket._value for bucket in self._buckets]]  # noqa: SLF001

    def shown(self, read: list[float]) -> Iterable[float]:
        """Return the counts up to each bound, the count of all and their sum."""
        total, *counts = read
        return *accumulate(counts), sum(counts), total

    def exemplars(self) -> Iterable[str]:
        """Return those of the buckets."""
        return (self._exemplar(bucket.get_exemplar()) for bucket in self._buckets)

    def _exemplar(self, exemplar: Exemplar | None) -> str:
        if exemplar is None:
            return ""
        sample = Sample(f"{self._name}_bucket", {}, 0)
        text: str = _compose_exemplar_string(self._family(), sample, exemplar)  # type: ignore[no-untyped-call]
        return text
