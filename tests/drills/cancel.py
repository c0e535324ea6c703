"""Show how soon the engine is free of an image that nobody wants any more.

Starts the service with the demo model on the loopback address and asks for images of 50
steps, one at a time. Each is given up at a random moment: by ``DELETE /jobs/{id}``, by closing
the connection of a ``POST /generate``, or by ``X-Request-Timeout``. The service's own log then
tells how many steps the image had when the end was known, and how many when it left the batch.

    python -m tests.drills.cancel                 50 images
    python -m tests.drills.cancel --jobs 9        fewer
    python -m tests.drills.cancel --write         the outcome into docs/cancellation.md, too

Exit code 1: an image was still worked on after the step in work and the one after it.
"""

import asyncio
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.drills.common import report
from tests.drills.common.drill import Drill, Given, Number
from tests.support.load_client import Client, background, client_of
from tests.support.service_process import ServiceProcess, service_in
from tests.support.wait import until

STEPS: Final = 50
BODY: Final = {"prompt": "a lighthouse at dusk", "width": 256, "height": 256, "steps": STEPS}
WARM: Final = 2
SECONDS: Final = 60.0
EARLIEST, LATEST = 0.1, 0.8  # Parts of a whole image's time between which it is given up.
MOST_STEPS: Final = 2
"""After the end is known: the one that is being done, and one whose report is on its way."""


class Way(StrEnum):
    DELETED = "`DELETE /jobs/{id}`"
    HUNG_UP = "connection closed"
    TIMED_OUT = "`X-Request-Timeout`"


@dataclass(frozen=True, kw_only=True)
class Left:
    """One image that was given up; times are seconds since 1970."""

    way: Way
    given_up: float
    noticed: float
    free: float  # When the engine said that it has left the batch.
    known: int  # Steps that the service knew of when it noticed.
    done: int  # Steps that the engine had done when the image left.

    @property
    def after(self) -> int:
        return self.done - self.known


@dataclass(kw_only=True)
class Outcome:
    step: float = 0.0
    left: list[Left]


async def give_up(client: Client, way: Way, name: str, seconds: float) -> float:
    """Ask for one image and give it up; return when."""
    begun, headers = time.time(), {"X-Request-ID": name}
    if way is Way.TIMED_OUT:
        await client.generate(BODY, headers={**headers, "X-Request-Timeout": f"{seconds:.3f}"})
        return begun + seconds
    if way is Way.DELETED:
        job = await client.accept(BODY, headers=headers)
        await asyncio.sleep(seconds)
        given_up = time.time()
        (await client.ask("DELETE", f"/jobs/{job}")).require(HTTPStatus.OK)
        return given_up
    # aiohttp closes a connection whose answer nobody reads.
    async with background(client.generate(BODY, headers=headers)):
        await asyncio.sleep(seconds)
        return time.time()


async def logged(service: ServiceProcess, way: Way, name: str, given_up: float) -> Left | None:
    """Return what the log says of an image; None where it was finished before."""

    async def line(event: str, **fields: str) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            return next(iter(service.lines(event, **fields)), None)

        return await until(there, SECONDS, f"{event} of {name}")

    ended = await line("job_ended", request_id=name)
    if ended["outcome"] == "succeeded":
        return None
    left = await line("job_left_batch", job_id=ended["job_id"])
    noticed, free = (
        datetime.fromisoformat(each["timestamp"]).timestamp() for each in (ended, left)
    )
    known, done = ended["steps_done"], left["steps_done"]
    return Left(way=way, given_up=given_up, noticed=noticed, free=free, known=known, done=done)


async def run(given: Given, folder: Path) -> Outcome:
    """Give up so many images, each way in turn."""
    outcome, ways, chance = Outcome(left=[]), list(Way), random.Random(given.seed)
    async with (
        service_in(folder, **report.SETTINGS) as service,
        client_of(service.url) as client,
    ):
        await service.start()
        bodies = [(await client.generate(BODY)).body for _ in range(WARM)]
        whole = min(body["metadata"]["generation_time_seconds"] for body in bodies)
        outcome.step = whole / STEPS
        for number in itertools.count():
            if len(outcome.left) == given.jobs:
                break
            way, name = ways[len(outcome.left) % len(ways)], f"figure-{number}"
            given_up = await give_up(client, way, name, whole * chance.uniform(EARLIEST, LATEST))
            left = await logged(service, way, name, given_up)
            outcome.left += [left] if left else []
    return outcome


def table(outcome: Outcome) -> str:
    ways = {way.value: [left for left in outcome.left if left.way is way] for way in Way}
    columns: report.Columns = {
        "Images": len,
        "Steps done after": _after,
        "Noticed after, ms": lambda own: _times([each.noticed - each.given_up for each in own]),
        "Engine free then, ms": lambda own: _times([each.free - each.noticed for each in own]),
    }
    return report.grouped("Given up by", columns, ways)


def _after(own: Sequence[Left]) -> str:
    counts = sorted(Counter(left.after for left in own).items())
    return ", ".join(f"{steps}: {count} times" for steps, count in counts)


def _times(seconds: Sequence[float]) -> str:
    return f"{1000 * median(seconds):.0f}, {1000 * max(seconds):.0f}" if seconds else ""


def freed(outcome: Outcome) -> Iterator[str]:
    """Find images that were worked on for longer than two steps after their end was known."""
    if not outcome.left:
        yield "no image was given up"
    for left in outcome.left:
        if left.after > MOST_STEPS:
            yield f"{left.after} steps were done after {left.way.value}"


DRILL: Final = Drill(
    command="tests.drills.cancel",
    about=__doc__,
    page="cancellation",
    numbers=(
        Number(name="jobs", default=50, about="images that are given up"),
        Number(name="seed", default=1, about="of the moments"),
    ),
    run=run,
    checks={"the engine is free within two steps": freed},
    heading=lambda _, outcome: f": a step takes {1000 * outcome.step:.0f} ms here.",
    described=table,
)

if __name__ == "__main__":
    sys.exit(DRILL.main())
