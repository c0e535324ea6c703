"""One drill: clients, kills, and the look at what is left."""

import asyncio
import io
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
from PIL import Image, ImageChops

from scripts.chaos_drill import receiver
from scripts.chaos_drill.client import Client
from scripts.chaos_drill.killer import Kill, Killer, plan
from scripts.chaos_drill.ledger import Account, Ledger, seed_of
from scripts.chaos_drill.orders import Order, orders
from scripts.drill.service import Service, service_in
from scripts.drill.wait import TooLateError, until

MAX_ATTEMPTS: Final = 3
SETTINGS: Final = {
    "FAULT_FILE": "",
    "MIN_SIZE": "256",
    "MAX_CONCURRENT_REQUESTS": "3",
    "QUEUE_SIZE": "10",
    "MAX_ATTEMPTS": str(MAX_ATTEMPTS),
    "REQUEST_TIMEOUT_SECONDS": "900",
    "ENGINE_STALL_SECONDS": "15",
    "WEBHOOK_HOSTS": "127.0.0.1",
    "WEBHOOK_SECRET": receiver.SECRET,
}
"""Few places, so that some are refused; a deadline that only orders with one of their own meet."""

CLIENTS: Final = 16
SETTLE_SECONDS: Final = 300.0
"""For what is open after the last kill; reached only when something is lost."""

TOLD_SECONDS: Final = 120.0
"""For webhooks on their way: a receiver that was not ready is asked again after 5, 10, 20 s."""

SAMPLE: Final = 12
MOST_DIFFERING: Final = 0.0002
"""Part of the values that may differ by one step of 255: pictures share their batch with others."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a drill shall do."""

    seed: int = 1
    jobs: int = 200
    """At least; clients go on ordering until the last kill."""
    engine_kills: int = 20
    service_kills: int = 10
    minutes: float = 20.0
    module: str = "service"
    folder: Path


@dataclass(kw_only=True)
class Outcome:
    """What a drill has seen."""

    ledger: Ledger
    kills: list[Kill] = field(default_factory=list)
    seconds: float = 0.0
    unsent: int = 0
    """Orders that are missing to the number that was wished for, as the time was over."""


class Desk:
    """Hands out orders as long as there are kills to come, and a least number of them."""

    def __init__(self, coming: Iterator[Order], least: int) -> None:
        self._coming = coming
        self._least = least
        self._taken = 0
        self.closing = False
        """Whether no more is handed out than the least number."""
        self.closed = False
        """Whether nothing is handed out any more."""

    @property
    def unsent(self) -> int:
        """Orders that are missing to the least number."""
        return max(0, self._least - self._taken)

    def take(self) -> Order | None:
        """Return the next order; None when there is none for anybody any more."""
        if self.closed or (self.closing and not self.unsent):
            return None
        self._taken += 1
        return next(self._coming)


async def run(wish: Wish) -> Outcome:
    """Do the drill and return what it saw."""
    ledger = Ledger(max_attempts=MAX_ATTEMPTS)
    outcome = Outcome(ledger=ledger)
    begun = time.monotonic()
    async with (
        receiver.listening(ledger, wish.seed) as listener,
        service_in(wish.folder, SETTINGS, module=wish.module) as service,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        await service.start()
        client = Client(service.url, session, ledger, wish.seed)
        await client.read_description()
        await _disturbed(wish, outcome, service, client, listener.url)
        listener.calm = True
        await service.ready()
        await _settled(ledger, client)
        await _compare(wish, ledger, client)
    outcome.seconds = time.monotonic() - begun
    return outcome


async def _disturbed(
    wish: Wish, outcome: Outcome, service: Service, client: Client, address: str
) -> None:
    """Let clients order and the killer kill; go on until all orders are over."""
    desk = Desk(orders(wish.seed, address), wish.jobs)
    chance = random.Random(wish.seed)  # noqa: S311 - repeatable, not secret
    killer = Killer(service, outcome.ledger, chance)
    outcome.kills = killer.kills
    clients = [asyncio.create_task(_orders(desk, client)) for _ in range(CLIENTS)]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(wish.minutes * 60):
                await killer.rage(plan(chance, wish.engine_kills, wish.service_kills))
                desk.closing = True
                await asyncio.wait(clients)
        desk.closed = True
        if not service.child.running:  # The time was over in the midst of a restart.
            await service.start()
        await asyncio.wait(clients, timeout=SETTLE_SECONDS)
        outcome.unsent = desk.unsent
    finally:
        for task in clients:
            task.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def _orders(desk: Desk, client: Client) -> None:
    while (order := desk.take()) is not None:
        await client.get_served(order)


async def _settled(ledger: Ledger, client: Client) -> None:
    """Look at everything once more, when the webhooks have come and nothing is killed any more."""
    wanted = [a for a in ledger.taken if a.ends and "webhook" in a.order.body]

    async def all_told() -> bool:
        heard = {notice.job for notice in ledger.notices if not notice.refused}
        return all(set(account.ids) <= heard for account in wanted)

    with suppress(TooLateError):  # The checks say who was not told.
        await until(all_told, TOLD_SECONDS, "the webhooks")
    for account in ledger.taken:
        async with asyncio.timeout(SETTLE_SECONDS):
            await client.look_again(account)
    ledger.listed = {str(job["id"]): seed_of(job) for job in await client.all_jobs()}


async def _compare(wish: Wish, ledger: Ledger, client: Client) -> None:
    """Make some pictures anew, one at a time, and compare."""
    finished = [account for account in ledger.taken if account.png]
    chance = random.Random(wish.seed)  # noqa: S311 - repeatable, not secret
    for account in chance.sample(finished, min(SAMPLE, len(finished))):
        ledger.calm[account.order.number] = await _difference(account, client)


async def _difference(account: Account, client: Client) -> str:
    async with asyncio.timeout(SETTLE_SECONDS):
        anew = await client.plain(account)
    if not anew:
        return "the same request makes no picture"
    with Image.open(io.BytesIO(account.png)) as one, Image.open(io.BytesIO(anew)) as other:
        return difference(one.convert("RGB"), other.convert("RGB"))


def difference(one: Image.Image, other: Image.Image) -> str:
    """Return how two pictures differ; empty where they are the same up to rounding."""
    if one.size != other.size:
        return f"{one.size} and {other.size}"
    counts = ImageChops.difference(one, other).histogram()
    steps = [sum(counts[value::256]) for value in range(256)]
    most = max((value for value, count in enumerate(steps) if count), default=0)
    part = sum(steps[1:]) / max(sum(steps), 1)
    if most > 1 or part > MOST_DIFFERING:
        return f"{part:.3%} of the values differ, by up to {most}"
    return ""
