"""GET /metrics, written in pieces."""

import asyncio

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.http.native import scrape
from service.http.state import METRICS
from tests.support.load_client import background

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def names(text: str) -> list[str]:
    return [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]


async def test_every_family_is_there_once(client):
    """In the order and the form in which the library writes all of them."""
    async with client.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        shown = names(await answer.text())
    assert shown == names(generate_latest(client.app[METRICS].registry).decode())
    assert len(shown) == len(set(shown)) > 50


async def test_openmetrics_ends_once(client):
    """What comes after its last line would not be read."""
    async with client.get("/metrics", headers=OPENMETRICS) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        text = await answer.text()
    assert (text.count("# EOF"), text.endswith("# EOF\n")) == (1, True)


async def test_a_scrape_can_ask_for_some_families(client):
    """By the names of their series."""
    wanted = [("name[]", "sd_queue_depth"), ("name[]", "sd_ready")]
    async with client.get("/metrics", params=wanted) as answer:
        assert sorted(names(await answer.text())) == ["sd_queue_depth", "sd_ready"]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_others_are_served_while_a_family_is_written(client, monkeypatch, encoding):
    """One of 1,000 engines takes a second. What they count meanwhile is in none of it."""
    monkeypatch.setattr(scrape, "SLICE_SECONDS", -1.0)  # As if each piece took so long.
    numbers = [str(number) for number in range(5000)]
    metrics = client.app[METRICS]
    test = metrics.counter("sd_test_total", "A test.", number=numbers)
    ends = [test.labels(number) for number in (numbers[0], numbers[2500], numbers[-1])]
    metrics.gauge("sd_test_afterwards", "The same, read when that is written.").set_function(
        ends[0]._value.get
    )

    async def count() -> None:
        while True:
            for each in ends:
                each.inc()
            await asyncio.sleep(0)

    headers = {"Accept-Encoding": encoding}
    async with background(count()), client.get("/metrics", headers=headers) as answer:
        assert answer.headers.get("Content-Encoding", "identity") == encoding
        text = await answer.text()
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    shown = {sample.value for sample in families["sd_test"]} - {0.0}
    (afterwards,) = families["sd_test_afterwards"]
    assert len(shown) == 1
    assert afterwards.value - shown.pop() >= len(text) // scrape.PIECE - 4
