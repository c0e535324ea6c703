"""A measurement and a scene: a service with several engines, its clients, and who is struck."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from tests.drills.chaos.patient import Patient
from tests.drills.common import report
from tests.drills.common.drill import Given
from tests.drills.common.ledger import Ledger, Order
from tests.drills.common.orders import drawn
from tests.drills.engines.outcome import Course, Rate, Strike, back_after, ends, rate
from tests.drills.engines.scenes import Scene
from tests.support.fake_worker import JOB_SECONDS, LOAD_SECONDS
from tests.support.load_client import Client, client_of
from tests.support.service_process import READY_SECONDS, ServiceProcess, service_in
from tests.support.wait import TooLateError, until
from tests.support.worker import Cpu

FAKE: Final = "tests.support.fake_worker"
SIDE: Final = 256
STEPS: Final = 4
CLIENTS: Final = 6
"""For each engine: more than its batch, so that it never waits for them."""

BATCH: Final = 2
MAX_ATTEMPTS: Final = 3
SETTLE_SECONDS: Final = 3.0
"""Of load before and after a strike, to compare with."""

BACK_SECONDS: Final = 30.0
"""Until the throughput is back; what takes longer is told as never."""

END_SECONDS: Final = 120.0
"""For the last orders; reached only when one is lost."""

ENOUGH_SECONDS: Final = 600.0
"""Until there were enough orders; reached only when something is broken."""

KEY: Final = "the-key-of-all-clients-in-this-drill"
QUOTA: Final = 1_000_000
"""Images a day: more than any drill makes."""

REMAINING: Final = "X-RateLimit-Remaining-Images"
SETTINGS: Final = {
    **report.SETTINGS,
    "MAX_CONCURRENT_REQUESTS": str(BATCH),
    "MAX_ATTEMPTS": str(MAX_ATTEMPTS),
    "REQUEST_TIMEOUT_SECONDS": "900",
    "MAX_CONNECTIONS": "512",
    "MAX_CONNECTIONS_PER_ADDRESS": "512",
    "QUEUE_SIZE": "512",
    "API_KEYS": f"drill:{KEY}",
    "QUOTA_IMAGES_PER_DAY": str(QUOTA),
}


async def measured(given: Given, folder: Path, engines: int) -> Rate:
    """Return what so many engines do together."""
    ledger, settings = Ledger(max_attempts=MAX_ATTEMPTS), _local(given, engines)
    async with serving(folder, engines, settings) as (service, client):
        async with ordering(client, ledger, given.seed, engines):
            await asyncio.sleep(SETTLE_SECONDS)
            begun, cpu = time.time(), Cpu(service.pid).cpu
            await asyncio.sleep(given.seconds)
            over, spent = time.time(), Cpu(service.pid).cpu - cpu
        done = [at for at in ends(service.log) if begun <= at < over]
    return Rate(images=rate(done), cpu=spent / max(len(done), 1), ledger=ledger)


async def played(scene: Scene, given: Given, folder: Path) -> Course:
    """Strike one engine after the other while clients order; wait each time until all is well."""
    course = Course(name=scene.name, ends=scene.ends, ledger=Ledger(max_attempts=MAX_ATTEMPTS))
    chance = random.Random(f"{given.seed} {scene.folder}")
    settings = {**_local(given, given.engines), LOAD_SECONDS: scene.load_seconds}
    async with serving(folder, given.engines, settings) as (service, client):
        async with ordering(client, course.ledger, given.seed, given.engines):
            for _ in range(given.strikes):
                slot = str(chance.randrange(given.engines))
                course.strikes.append(await struck(service, partial(scene.strike, service, slot)))
            await enough(course.ledger, given.jobs)
        await look_back(course, service, client)
    return course


def _local(given: Given, engines: int) -> dict[str, Any]:
    return {"ENGINES": engines, JOB_SECONDS: given.job_seconds}


async def struck(service: ServiceProcess, strike: Callable[[], Awaitable[Strike]]) -> Strike:
    """Strike between two times of calm, and wait until the throughput is back."""
    begun = time.time()
    await asyncio.sleep(SETTLE_SECONDS)
    before = rate([at for at in ends(service.log) if at >= begun])
    found = await strike()
    found.before = before

    async def back() -> bool:
        found.back = back_after(ends(service.log), found)
        return found.back is not None

    with suppress(TooLateError):  # The goals tell.
        await until(back, BACK_SECONDS, "the throughput")
    return found


async def enough(ledger: Ledger, jobs: int) -> None:
    """Wait until there were so many orders."""

    async def there() -> bool:
        return len(ledger.accounts) >= jobs

    await until(there, ENOUGH_SECONDS, "enough orders")


async def look_back(course: Course, service: ServiceProcess, client: Client) -> None:
    """Note what the service says of a scene when all its orders are over."""
    listed = await client.listed()
    course.ledger.listed = {
        job: (each.get("metadata") or {}).get("seed") for job, each in listed.items()
    }
    course.billed = await _billed(client)
    course.log = list(service.log)


async def _billed(client: Client) -> int:
    """Return how many images count in the quota of the clients' key; one more is made for that."""
    answer = await client.generate({"prompt": "one more", "width": SIDE, "height": SIDE})
    return QUOTA - int(answer.require(HTTPStatus.OK).headers[REMAINING]) - 1


@asynccontextmanager
async def serving(
    folder: Path, engines: int, settings: Mapping[str, Any], module: str = FAKE
) -> AsyncIterator[tuple[ServiceProcess, Client]]:
    """Hand out a service all of whose engines are loaded."""
    await asyncio.to_thread(folder.mkdir)
    async with (
        service_in(folder, module=module, **{**SETTINGS, **settings}) as service,
        client_of(service.url, key=KEY) as client,
    ):
        await service.start()

        async def all_loaded() -> bool:
            return len(service.lines("model_loaded")) >= engines

        await until(all_loaded, READY_SECONDS, f"{engines} engines")
        yield service, client


@asynccontextmanager
async def ordering(
    client: Client, ledger: Ledger, seed: int, engines: int, webhook: str = ""
) -> AsyncIterator[None]:
    """Let clients order, each its next image when it has the last; then wait for all."""
    patient, coming, closing = Patient(client, ledger, seed), orders(seed, webhook), [False]

    async def order() -> None:
        while not closing[0]:
            await patient.get_served(next(coming))

    clients = [asyncio.create_task(order()) for _ in range(CLIENTS * engines)]
    try:
        yield
        closing[0] = True
        await asyncio.wait(clients, timeout=END_SECONDS)  # The checks name what never ended.
    finally:
        for task in clients:
            task.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


def orders(seed: int, webhook: str = "") -> Iterator[Order]:
    """Yield orders without end, every other one as a durable job, which ``webhook`` is told of."""
    chance = random.Random(seed)
    for number in itertools.count():
        body = drawn(chance, [(SIDE, SIDE)], [STEPS])
        key, synchronous = f"engines-{seed}-{number}", number % 2 == 0
        if webhook and not synchronous:
            body["webhook"] = f"{webhook}{number}"
        yield Order(number=number, key=key, body=body, synchronous=synchronous)
