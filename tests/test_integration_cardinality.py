"""However clients behave, the number of series stays what an operator can pay for."""

import asyncio
import random
import string

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from service.app import create_app
from service.config.table import Config
from service.core.sampler import Sampler
from tests.support.simulation.fake_engine import FakeEngine

pytestmark = pytest.mark.long

REQUESTS = 10_000
AT_ONCE = 50
MOST_SERIES = 1_600
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "PROPFIND", "BREW")
MARK = "hostile"


def word(rng: random.Random) -> str:
    """Return what nobody said before, with a mark that shows wherever it ends up."""
    return MARK + "".join(rng.choices(string.ascii_letters + string.digits, k=12))


def hostile(rng: random.Random) -> tuple[str, str, dict[str, object]]:
    """Return a method, a path and the rest of a request that wants a series of its own."""
    headers = {
        "X-Request-ID": word(rng),
        "User-Agent": word(rng),
        "traceparent": f"00-{rng.getrandbits(128) | 1:032x}-{rng.getrandbits(64) | 1:016x}-01",
        "Authorization": f"Bearer {word(rng)}",
    }
    match rng.randrange(5):
        case 0:
            return rng.choice(METHODS), f"/{word(rng)}/{word(rng)}", {"headers": headers}
        case 1:
            return rng.choice(METHODS), f"/docs/{word(rng)}?{word(rng)}=1", {"headers": headers}
        case 2:
            return word(rng).upper(), "/generate", {"headers": headers}
        case 3:
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


async def test_ten_thousand_hostile_requests_make_no_series_of_their_own():
    """Paths, methods, ids, keys and prompts reach no label; what there is has a bound."""
    rng = random.Random(7)  # noqa: S311 - it only has to vary
    app = create_app(Config(device="cpu", data_dir="", queue_size=AT_ONCE), FakeEngine())
    orders = [hostile(rng) for _ in range(REQUESTS)]
    statuses: set[int] = set()

    async with TestServer(app) as server, ClientSession() as session:

        async def client() -> None:
            while orders:
                method, path, rest = orders.pop()
                async with session.request(method, server.make_url(path), **rest) as answer:  # type: ignore[arg-type]
                    statuses.add(answer.status)
                    await answer.read()

        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
        async with session.get(server.make_url("/metrics")) as answer:
            text = await answer.text()

    series = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {200, 400, 404, 405} <= statuses
    assert MARK not in text.lower()
    assert len(series) < MOST_SERIES
