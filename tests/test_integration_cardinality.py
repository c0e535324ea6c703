"""However clients behave, the number of series stays what an operator can pay for."""

import asyncio
import random
import re
import string
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.config.table import Config
from service.core.sampler import Sampler
from service.http.route import CLIENT, READING, UNMATCHED, Route
from service.http.state import ROUTES
from service.telemetry import labels
from tests.support.monitoring.answers import ANSWERS
from tests.support.simulation.fake_engine import FakeEngine

pytestmark = pytest.mark.long

REQUESTS = 10_000
AT_ONCE = 50
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "PROPFIND", "BREW")
MARK = "hostile"


def word(rng: random.Random) -> str:
    """Return what nobody said before, with a mark that shows wherever it ends up."""
    return MARK + "".join(rng.choices(string.ascii_letters + string.digits, k=12))


def hostile(rng: random.Random, rows: tuple[Route, ...]) -> tuple[str, str, dict[str, Any]]:
    """Return a method, a path and the rest of a request that wants a series of its own."""
    headers = {
        "X-Request-ID": word(rng),
        "User-Agent": word(rng),
        CLIENT: rng.choice((word(rng), *labels.CLIENTS)),
        "traceparent": f"00-{rng.getrandbits(128) | 1:032x}-{rng.getrandbits(64) | 1:016x}-01",
        "Authorization": f"Bearer {word(rng)}",
    }
    match rng.randrange(6):
        case 0:
            return rng.choice(METHODS), f"/{word(rng)}/{word(rng)}", {"headers": headers}
        case 1:
            row = rng.choice(rows)
            path = re.sub(r"\{\w+\}", lambda _: word(rng), row.path)
            return rng.choice((row.method, *METHODS)), path, {"headers": headers, "json": {}}
        case 2:
            return rng.choice(METHODS), f"/docs/{word(rng)}?{word(rng)}=1", {"headers": headers}
        case 3:
            return word(rng).upper(), "/generate", {"headers": headers}
        case 4:
            wrong = {"prompt": word(rng), "sampler": word(rng), "width": rng.randrange(9999)}
            return "POST", "/generate", {"headers": headers, "json": wrong}
        case _:
            asked = {
                "prompt": word(rng),
                "negative_prompt": word(rng),
                "sampler": rng.choice(list(Sampler)),
                "width": rng.choice((256, 320, 384)),
                "height": 256,
                "steps": rng.randrange(1, 4),
                "seed": rng.getrandbits(32),
            }
            return "POST", "/generate", {"headers": headers, "json": asked}


def answered(app: web.Application) -> Iterator[tuple[str, str, str]]:
    """Yield each API, method and route that an answer may be counted by."""
    for row in app[ROUTES].rows:
        apis = {row.api.label({CLIENT: name}) for name in ("", *labels.CLIENTS)}
        yield from product(apis, READING if row.method == "GET" else (row.method,), (row.path,))
    yield from product(ANSWERS["api"], ANSWERS["method"], (UNMATCHED,))


def born(app: web.Application) -> dict[str, set[tuple[str, ...]]]:
    """Return the labels of all series that a service may show later than at its start."""
    answers: set[tuple[str, ...]] = set(answered(app))
    return {
        "sd_http_requests": {
            (*answer, status) for answer, status in product(answers, ANSWERS["status"])
        },
        "sd_http_request_duration_seconds": answers,
        "sd_jobs_accepted": set(product(labels.APIS, Sampler)),
    }


def shown(text: str) -> dict[str, set[tuple[str, ...]]]:
    """Return the labels of all series of a scrape by family: values in the order of the names."""
    return {
        family.name: {
            tuple(value for label, value in sorted(sample.labels.items()) if label != "le")
            for sample in family.samples
        }
        for family in text_string_to_metric_families(text)
    }


async def test_ten_thousand_hostile_requests_make_no_series_of_their_own():
    """Paths, methods, ids, keys and prompts reach no label: every series was known beforehand.

    It was there at the start, of every engine, or the table of routes and closed lists give it.
    """
    rng = random.Random(7)  # noqa: S311 - it only has to vary
    app = create_app(Config(device="cpu", data_dir="", queue_size=AT_ONCE), FakeEngine())
    statuses: set[int] = set()

    async with TestServer(app) as server, ClientSession() as session:

        async def scrape() -> str:
            async with session.get(server.make_url("/metrics")) as answer:
                return await answer.text()

        async def client() -> None:
            while orders:
                method, path, rest = orders.pop()
                async with session.request(method, server.make_url(path), **rest) as answer:
                    statuses.add(answer.status)
                    await answer.read()

        start = shown(await scrape())
        orders = [hostile(rng, app[ROUTES].rows) for _ in range(REQUESTS)]
        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
        text = await scrape()

    later = born(app)
    assert {200, 400, 404, 405} <= statuses
    assert MARK not in text.lower()
    for family, series in shown(text).items():
        assert series - start[family] <= later.get(family, set()), family
