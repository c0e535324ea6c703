"""The course of the test: rounds of work, and a rest behind each to measure in."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from scripts.drill.service import Service
from scripts.drill.wait import TooLateError, until
from scripts.stress.meter import Meter
from scripts.stress.orders import Order
from scripts.stress.polite import POLITE, Client, WrongAnswerError
from scripts.stress.rude import Rudeness

MIB: Final = 2**20
SAMPLE_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 240.0
REST_SECONDS: Final = 60.0
"""After the clients have gone; what is still in work then is never going to end."""

QUIET_SECONDS: Final = 1.25
"""How long nothing must be in work: a job that nobody waits for may be about to be queued, and
the engine tidies up after a second."""

FAILURES: Final = (WrongAnswerError, aiohttp.ClientError, OSError, EOFError)
"""What a client may meet that no client should; timeouts and cut lines are among them."""

UNFINISHED: Final = ("queued", "running")
STEADY: Final = "steady"
HANG_UP: Final = "hang-up"


@dataclass(kw_only=True)
class Course:
    """What is done to one service, phase after phase, and what came of it."""

    service: Service
    meter: Meter
    orders: Iterator[Order]
    clients: int
    rounds: int
    """Of each phase: as many samples at rest."""
    seed: int
    ends: float = float("inf")
    """By the monotonic clock: no round begins after it."""
    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each thing was done, by phase and name."""
    problems: list[str] = field(default_factory=list)
    short: bool = False
    """Whether time ran out."""

    async def phase(self, name: str, generations: int) -> None:
        """Make so many generations in rounds, and rest after each."""
        self.meter.phase = name
        rude = Rudeness(self.service.url, self.seed) if name == HANG_UP else None
        actions = self._actions(rude)
        await self._rest()
        rounds = min(self.rounds, generations)
        for number in range(rounds):
            if time.monotonic() > self.ends:
                self.short = True
                return
            share = generations * (number + 1) // rounds - generations * number // rounds
            await self._round(actions, share)
            if rude is not None:
                await rude.round_over()
            await self._rest()

    def _actions(self, rude: Rudeness | None) -> Iterator[tuple[str, Client, bool]]:
        """Yield what to do next, and whether it is a generation."""
        polite = _shuffled(POLITE, self.seed)
        if rude is None:
            yield from ((name, client, True) for name, client in polite)
            return
        ordering, idle = _shuffled(rude.ordering, self.seed), _shuffled(rude.idle, self.seed)
        while True:
            yield *next(polite), True
            yield *next(ordering), True
            yield *next(idle), False
            yield *next(ordering), True

    async def _round(self, actions: Iterator[tuple[str, Client, bool]], generations: int) -> None:
        left = generations

        async def client(session: aiohttp.ClientSession) -> None:
            nonlocal left
            while left > 0:
                name, act, counts = next(actions)
                left -= counts
                try:
                    await act(session, next(self.orders))
                except (
                    WrongAnswerError,
                    aiohttp.ClientError,
                    OSError,
                    EOFError,
                    TimeoutError,
                ) as e:
                    self.problems.append(f"{self.meter.phase}, {name}: {type(e).__name__}: {e}")
                self.done[self.meter.phase, name] += 1
                self.meter.generations += counts

        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        watching = asyncio.create_task(self.meter.every(SAMPLE_SECONDS))
        # A session of its own per round: at rest no connection of a client is left.
        async with aiohttp.ClientSession(self.service.url, timeout=timeout) as session:
            await asyncio.gather(*(client(session) for _ in range(self.clients)))
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    async def _rest(self) -> None:
        """Wait until nothing is in work, and measure."""

        async def quiet() -> bool:
            if await self.in_work():
                return False
            await asyncio.sleep(QUIET_SECONDS)
            return not await self.in_work()

        try:
            await until(quiet, REST_SECONDS, "rest")
        except TooLateError:
            self.problems.append(f"{self.meter.phase}: left in work: {await self.in_work()}")
        sample = await self.meter.sample(resting=True)
        service, engine = sample.service.anonymous / MIB, sample.engine.anonymous / MIB
        print(
            f"{sample.seconds:6.0f} s  {sample.phase:8}{sample.generations:6}  "
            f"engine {engine:7.1f} MiB  service {service:6.1f} MiB  problems {len(self.problems)}",
            flush=True,
        )

    async def in_work(self) -> dict[str, float]:
        """Return what the service says it is still doing, by its metrics and its job store."""
        found = await self.meter.metrics()
        none: frozenset[tuple[str, str]] = frozenset()
        asked = {
            "jobs waiting": found["sd_queue_depth", none],
            "jobs running": found["sd_jobs_running", none],
            # This very question is one of them; waiters and event streams are the others.
            "requests in flight": found["sd_http_requests_in_flight", none] - 1,
            **{f"jobs {state} on the disk": await self.meter.jobs(state) for state in UNFINISHED},
        }
        return {name: count for name, count in asked.items() if count}


def _shuffled(actions: Mapping[str, Client], seed: int) -> Iterator[tuple[str, Client]]:
    """Yield all again and again, each time in another order."""
    chance = random.Random(seed)  # noqa: S311 - a sequence to repeat, not a secret
    items: Sequence[tuple[str, Client]] = list(actions.items())
    for _ in itertools.count():
        yield from chance.sample(items, len(items))
