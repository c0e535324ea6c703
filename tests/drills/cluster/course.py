"""One scene: a service whose engines are in the cluster, its clients, and what is struck."""

import random
from functools import partial
from pathlib import Path
from typing import Final

from tests.drills.cluster.scenes import Place, Scene
from tests.drills.common.drill import Given
from tests.drills.common.ledger import Ledger
from tests.drills.engines.course import (
    MAX_ATTEMPTS,
    enough,
    look_back,
    ordering,
    serving,
    struck,
)
from tests.drills.engines.outcome import Course
from tests.support.ray.cluster import Cluster

FAKE: Final = "tests.support.ray.fake_service"


async def played(scene: Scene, given: Given, folder: Path, cluster: Cluster) -> Course:
    """Strike one process after the other while clients order; wait each time until all is well."""
    course = Course(name=scene.name, ends=scene.again, ledger=Ledger(max_attempts=MAX_ATTEMPTS))
    engines = given.engines * given.nodes
    settings = cluster.settings("drill")  # Each takes over what the one before may have left.
    async with serving(folder, engines, settings, FAKE) as (service, client):
        place = Place(
            cluster=cluster,
            service=service,
            chance=random.Random(f"{given.seed} {scene.name}"),
            engines=given.engines,
        )
        async with ordering(client, course.ledger, given.seed, engines):
            for _ in range(given.strikes):
                course.strikes.append(await struck(service, partial(scene.strike, place)))
            await enough(course.ledger, given.jobs)
        await look_back(course, service, client)
    return course
