"""Which alerts Prometheus and Alertmanager hold, from moment to moment."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from scripts.drill.scene import Expected
from scripts.drill.stack import Stack

LOOK_SECONDS: Final = 0.5
WATCHDOG: Final = "SDWatchdog"


@dataclass(frozen=True, kw_only=True)
class Sight:
    """One alert as it was seen at one time."""

    at: float
    state: str
    """``pending``, ``firing`` or, for one that Alertmanager holds back, ``inhibited``."""
    labels: Mapping[str, str]

    @property
    def alert(self) -> str:
        """Its name."""
        return self.labels["alertname"]


@dataclass
class Watch:
    """What was seen, and what is seen now."""

    seen: list[Sight] = field(default_factory=list)
    """The first sight of each alert in each state since it last was quiet."""
    now: list[Sight] = field(default_factory=list)

    def first(self, state: str, expected: Expected, since: float) -> Sight | None:
        """Return when an alert was first seen in a state after a point in time."""
        return next(
            (
                each
                for each in self.seen
                if each.at >= since and each.state == state and expected.matches(each.labels)
            ),
            None,
        )

    def names(self, state: str, since: float = 0.0) -> set[str]:
        """Return the alerts that came into a state since a point in time."""
        return {s.alert for s in self.seen if s.at >= since and s.state == state}

    @property
    def loud(self) -> set[str]:
        """Alerts that fire or are about to, but for the dead man's switch."""
        return {each.alert for each in self.now} - {WATCHDOG}

    async def look(self, stack: Stack) -> None:
        """Look once."""
        found = await stack.alerts()
        held = await stack.inhibited()
        at = time.time()
        sights = [Sight(at=at, state=state, labels=labels) for state, labels in found]
        sights += [Sight(at=at, state="inhibited", labels=labels) for labels in held]
        before = {_key(each) for each in self.now}
        self.seen += [each for each in sights if _key(each) not in before]
        self.now = sights


def _key(sight: Sight) -> tuple[str, frozenset[tuple[str, str]]]:
    return sight.state, frozenset(sight.labels.items())


@asynccontextmanager
async def watching(stack: Stack) -> AsyncIterator[Watch]:
    """Look again and again until the end."""
    watch = Watch()

    async def look() -> None:
        while True:
            # Busy cores: the next look comes soon.
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await watch.look(stack)
            await asyncio.sleep(LOOK_SECONDS)

    task = asyncio.create_task(look())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
