"""Prove what happens at ten times the load: measure the capacity, then send ten times as much.

Starts the service with the demo model on the loopback address. First some clients ask one
image after the other, which shows what the service can do; then clients come ten times
as fast for a minute, whether or not others are served, with three keys. Who is refused comes
back exactly after the ``Retry-After`` it was told.

    python -m tests.drills.overload                     60 s of ten times the capacity
    python -m tests.drills.overload --seconds 10        shorter
    python -m tests.drills.overload --write             the outcome into docs/overload.md, too

Exit code 1: somebody got no answer, a wrong one, or one long after the deadline. Goals that
depend on the machine are named when they are missed; with --goals that is exit code 1, too.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.drills.common import report
from tests.drills.common.drill import Drill, Given, Number
from tests.drills.common.samples import weighed
from tests.drills.overload.crowd import DEADLINES, SECRETS, SHARES, Crowd
from tests.drills.overload.outcome import BATCH, Outcome, Probe, described, missed, problems
from tests.support.load_client import client_of
from tests.support.service_process import ServiceProcess, service_in
from tests.support.worker import working

SETTINGS: Final = {
    **report.SETTINGS,
    "MAX_CONCURRENT_REQUESTS": str(BATCH),
    "REQUEST_TIMEOUT_SECONDS": "120",
    "API_KEYS": ",".join(f"{name}:{secret}" for name, secret in SECRETS.items()),
}
IDLE_SECONDS: Final = 3.0


async def run(given: Given, folder: Path) -> Outcome:
    """Measure the capacity first, then send ten times that, with an eye on health and memory."""
    outcome = Outcome(places=given.places)
    async with (
        service_in(folder, **SETTINGS, QUEUE_SIZE=given.places) as service,
        client_of(service.url) as client,
    ):
        await service.start()
        async with _probed(service, outcome.idle):
            await asyncio.sleep(IDLE_SECONDS)
        crowd = Crowd(client, given.seed)
        outcome.capacity = await crowd.capacity(given.capacity_seconds)
        outcome.visits = crowd.visits
        async with weighed(service.pid, outcome.resident), _probed(service, outcome.loaded):
            outcome.end = await crowd.arrive(given.factor * outcome.capacity, given.seconds)
        body = (await client.ask("GET", "/health")).body
        outcome.left_over = int(body["queue"]["depth"]), int(body["running"])
    return outcome


@asynccontextmanager
async def _probed(service: ServiceProcess, found: list[Probe]) -> AsyncIterator[None]:
    """Ask for /health from another process until the end; the list is full only then."""
    async with working("tests.drills.overload.health", service.address) as worker:
        yield
        found += [Probe(*sample) for sample in json.loads(await worker.end())]


def heading(given: Given, outcome: Outcome) -> str:
    """Return the begin of the figures of docs/overload.md."""
    shares = ", ".join(f"{name} {part:.0%}" for name, part in SHARES.items())
    deadlines = ", ".join(f"{seconds:g}" for seconds in DEADLINES)
    return f""":
{outcome.capacity:.2f} images a second for clients that wait for each other (256x256 to 384x384,
2 to 16 steps); then {len(outcome.visits)} clients in {given.seconds:g} s by three keys ({shares}),
with deadlines of {deadlines} s."""


DRILL: Final = Drill(
    command="tests.drills.overload",
    about=__doc__,
    page="overload",
    numbers=(
        Number(name="seed", default=1, about="of what is asked for"),
        Number(name="factor", default=10.0, about="times the capacity"),
        Number(name="seconds", default=60.0, about="of the overload"),
        Number(name="capacity-seconds", default=20.0, about="to measure the capacity in"),
        Number(name="places", default=64, about="QUEUE_SIZE"),
    ),
    run=run,
    checks={"everybody is answered in time": problems},
    goals={"promises and /health": missed},
    heading=heading,
    described=described,
)

if __name__ == "__main__":
    sys.exit(DRILL.main())
