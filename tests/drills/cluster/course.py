"""One scene: a service whose engines are in the cluster, its clients, and what is struck."""

import random
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from tests.drills.chaos import checks
from tests.drills.chaos.patient import Patient
from tests.drills.cluster.scenes import Place, Scene, rows_of
from tests.drills.common.drill import Given
from tests.drills.common.ledger import Ledger
from tests.drills.common.webhooks import SECRET, Receiver
from tests.drills.engines.course import (
    MAX_ATTEMPTS,
    enough,
    look_back,
    ordering,
    serving,
    struck,
)
from tests.drills.engines.outcome import Course
from tests.support.load_client import Client
from tests.support.ray.cluster import Cluster
from tests.support.receiver import receiving
from tests.support.wait import TooLateError, until

FAKE: Final = "tests.support.ray.fake_service"
TORCH: Final = "service"

TOLD_SECONDS: Final = 60.0
"""For the last webhooks; the checks name what was never told."""

SAMPLE: Final = 12
"""Images of torch that are made once more, for themselves."""


async def played(scene: Scene, given: Given, folder: Path, cluster: Cluster) -> Course:
    """Strike one process after the other while clients order; wait each time until all is well."""
    course = Course(
        name=scene.name,
        ends=scene.again,
        ledger=Ledger(max_attempts=MAX_ATTEMPTS),
        exact=not scene.torch,
    )
    ledger, engines = course.ledger, given.engines * given.nodes
    # Each takes over what the one before may have left.
    settings = {**cluster.settings("drill"), "WEBHOOK_SECRET": SECRET}
    receiver = Receiver(ledger, random.Random(given.seed))
    async with (
        receiving(receiver.accept) as address,
        serving(folder, engines, settings, TORCH if scene.torch else FAKE) as (service, client),
    ):
        place = Place(
            cluster=cluster,
            service=service,
            store=folder / "data" / "jobs.sqlite",
            chance=random.Random(f"{given.seed} {scene.name}"),
            engines=given.engines,
        )
        async with ordering(client, ledger, given.seed, engines, address):
            for _ in range(given.strikes):
                course.strikes.append(await struck(service, partial(scene.strike, place)))
            await enough(ledger, given.jobs)
        receiver.calm = True
        await _all_told(ledger)
        course.rows = rows_of(place.store)
        await look_back(course, service, client)
        if scene.torch:
            await _made_again(ledger, client, given.seed)
    return course


async def _all_told(ledger: Ledger) -> None:
    """Wait for the webhooks that are on their way."""

    async def told() -> bool:
        return not list(checks.told_once(ledger))

    with suppress(TooLateError):
        await until(told, TOLD_SECONDS, "the webhooks")


async def _made_again(ledger: Ledger, client: Client, seed: int) -> None:
    """Note how some images differ from the same ones made while nothing is struck."""
    patient = Patient(client, ledger, seed)
    made = [account for account in ledger.taken if account.png]
    for account in random.Random(seed).sample(made, min(SAMPLE, len(made))):
        ledger.calm[account.order.number] = await patient.compare(account)
