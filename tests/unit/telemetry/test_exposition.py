"""The text of the metrics is that of prometheus_client, whatever is kept of it."""

import pytest
from prometheus_client import Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parsed_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parsed_text
from prometheus_client.registry import Collector

from service.telemetry.exposition import LINES, Families, Format
from service.telemetry.registry import Registry

TEXT = "text/plain; version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ACCEPTED = (TEXT, OPENMETRICS, "text/plain; version=1.0.0; escaping=dots")
ODD = ("plain", 'a "quoted" one', "100 % and %s", "a\\b", "two\nlines", " 0.0", "Zoë", "")
EXEMPLAR = {"request_id": "mine", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}


class Many(Collector):
    """A collector of others' making, with more lines than a piece has."""

    def collect(self) -> list[Metric]:
        family = GaugeMetricFamily("sd_many", "Many.", labels=["number"])
        for number in range(2 * LINES + 1):
            family.add_metric([str(number)], number / 3)
        return [family, GaugeMetricFamily("sd_none", "None.", labels=["number"])]


class Every(Registry):
    """A metric of each kind, with labels that are hard to write."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors.clear()  # What is read anew each time, such as the memory of the process.
        self.events = self.counter("sd_events_total", 'What "it" is\\.\nAnd more.', label=ODD)
        self.level = self.gauge("sd_level", "A level.", label=ODD)
        self.one = self.gauge("sd_one", "Without labels.")
        self.known = self.reading("sd_known", "Absent until it is set.", label=ODD)
        self.time = self.histogram("sd_time_seconds", "A time.", (0.1, 1, 1e6, 1e7), label=ODD)
        self.plain = self.histogram("sd_plain_seconds", "Without labels.", (0.1, 1))
        self.nobody = self.counter("sd_nobody_total", "Without label sets.", label=())
        self.watch(Many())

    def change(self) -> None:
        for number, name in enumerate(ODD):
            self.events.labels(name).inc(number * 1e6)
            self.time.labels(name).observe(10**number / 100, EXEMPLAR if number % 2 else None)
        self.level.labels(ODD[0]).inc(1 / 3)
        self.level.labels(ODD[1]).set(float("inf"))
        self.level.labels(ODD[2]).set(float("-inf"))
        self.level.labels(ODD[3]).set(float("nan"))
        self.level.labels(ODD[4]).set_function(lambda: 7.5)
        self.known.labels(ODD[5]).set(0)
        self.plain.observe(0.5, EXEMPLAR)
        self.one.inc()


def written(metrics: Registry, accept: str) -> str:
    return "".join(Format(*choose_encoder(accept)).pieces(metrics.collectors))


def expected(metrics: Registry, accept: str) -> str:
    """Return what the library writes of the same collectors."""
    write, _ = choose_encoder(accept)
    families = [family for each in metrics.collectors for family in each.collect()]
    return write(Families(*families)).decode()


@pytest.mark.parametrize("accept", ACCEPTED)
def test_the_text_is_the_library_s_own(accept):
    """At first, after changes, and when a label set comes and another one goes."""
    metrics = Every()
    assert written(metrics, accept) == expected(metrics, accept)
    for _ in range(2):
        metrics.change()
        assert written(metrics, accept) == expected(metrics, accept)
    metrics.nobody.labels("somebody").inc()
    metrics.events.remove(ODD[0])
    assert written(metrics, accept) == expected(metrics, accept)


def test_scrapers_of_different_formats_get_each_their_own():
    """In turns, too: nothing that is kept for one is in the text of the other."""
    metrics = Every()
    metrics.change()
    for accept in (*ACCEPTED, *ACCEPTED):
        assert written(metrics, accept) == expected(metrics, accept)


@pytest.mark.parametrize(
    ("accept", "parsed"), [(TEXT, parsed_text), (OPENMETRICS, parsed_openmetrics)]
)
def test_a_parser_reads_what_was_counted(accept, parsed):
    """Values, labels and exemplars."""
    metrics = Every()
    metrics.change()
    metrics.level.labels(ODD[3]).set(0)  # No number is equal to itself.
    read = {family.name: family for family in parsed(written(metrics, accept))}
    again = {family.name: family for family in parsed(expected(metrics, accept))}
    assert read == again
    samples = {
        (sample.name, sample.labels.get("label")): sample.value
        for family in read.values()
        for sample in family.samples
    }
    assert samples["sd_events_total", ODD[2]] == 2e6
    assert samples["sd_time_seconds_count", ODD[4]] == 1
    assert ("sd_known", ODD[0]) not in samples


def test_all_of_a_registry_is_written():
    """In the library's order: what is watched, and every metric that is made."""
    metrics = Registry()
    metrics.counter("sd_events_total", "Events.")
    names = [line for line in written(metrics, TEXT).splitlines() if line.startswith("# TYPE")]
    all_of_them = generate_latest(metrics.registry).decode().splitlines()
    assert names == [line for line in all_of_them if line.startswith("# TYPE")]


def test_what_changes_between_two_pieces_is_in_none_of_them():
    """Buckets, count and sum fit each other, and so do the label sets."""
    metrics = Registry()
    metrics.collectors.clear()
    time = metrics.histogram("sd_time_seconds", "A time.", (0.1, 1), number=map(str, range(9)))
    before = expected(metrics, TEXT)
    pieces = []
    for piece in Format(*choose_encoder(TEXT)).pieces(metrics.collectors):
        pieces.append(piece)
        for number in range(9):
            time.labels(str(number)).observe(0.5)
    assert len(pieces) > 9
    assert "".join(pieces) == before
