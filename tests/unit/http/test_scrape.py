"""GET /metrics, written in pieces."""

import asyncio

from prometheus_client import Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily

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


class Seen(scrape.Families):
    """A family without series that notes how often others had their turn when it was written."""

    def __init__(self, turns: list[None]) -> None:
        super().__init__()
        self.turns = 0
        self._turns = turns

    def collect(self) -> list[Metric]:
        self.turns = len(self._turns)
        return [GaugeMetricFamily("sd_test", "Nothing.")]


async def test_others_are_served_between_two_families(client, monkeypatch):
    """Those of 64 engines take a quarter of a second; nobody waits for all of it."""
    monkeypatch.setattr(scrape, "SLICE_SECONDS", -1.0)  # As if each family took so long.
    turns: list[None] = []
    seen = [Seen(turns), Seen(turns)]
    for each in seen:
        client.app[METRICS].watch(each)

    async def turn() -> None:
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    async with background(turn()), client.get("/metrics") as answer:
        assert names(await answer.text()).count("sd_test") == 2
    first, second = (each.turns for each in seen)
    assert 0 < first < second
