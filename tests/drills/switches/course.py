"""One scene of the drill: clients, a service that loads models, whoever kills it; the figures."""

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tests.drills.chaos.killer import Killer
from tests.drills.chaos.patient import Patient
from tests.drills.common import report
from tests.drills.common.drill import Given
from tests.drills.common.ledger import Ledger, Order
from tests.drills.switches.outcome import MAX_ATTEMPTS, Course
from tests.drills.switches.scenes import Scene
from tests.support.load_client import client_of
from tests.support.service_process import ServiceProcess, service_in
from tests.support.wait import until

CLIENTS: Final = 4
SIDE: Final = 256
STEPS: Final = 10
KIB: Final = 1024
LOAD_SECONDS: Final = 240.0
"""Until a model is asked for; reached only when something is broken."""

SETTINGS: Final = {
    **report.SETTINGS,
    "MAX_CONCURRENT_REQUESTS": str(CLIENTS),
    "DEFAULT_SIZE": str(SIDE),
    "BATCH_CALIBRATION": "false",
    "REQUEST_TIMEOUT_SECONDS": "900",
    "MAX_ATTEMPTS": str(MAX_ATTEMPTS),
}


async def played(scene: Scene, given: Given, folder: Path, models: Path) -> Course:
    """Let clients ask for images until the time is over and the last blow has been struck."""
    limit = round(given.limit_gb * 1e9)
    course = Course(scene=scene, ledger=Ledger(max_attempts=MAX_ATTEMPTS))
    default = {"MODEL_ID": str(models / scene.default)} if scene.limited else {}
    settings: dict[str, Any] = {**SETTINGS, **scene.settings, **default, "MODELS": str(models)}
    async with service_in(folder, **settings) as service, client_of(service.url) as client:
        if scene.limited:
            # What it starts has the limit, too.
            service.prefix = ("sh", "-c", f'ulimit -v {limit // KIB} && exec "$@"', "sh")
        await service.start()
        patient = Patient(client, course.ledger, given.seed)
        begun = time.monotonic()
        closing = asyncio.Event()
        numbers = itertools.count()

        async def ask(number: int) -> None:
            for request in itertools.count():
                if closing.is_set() and request >= given.images:
                    return
                order = _order(next(numbers), scene.model(number, request), given.seed)
                await patient.get_served(order)

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(ask(number))
            blows = scene.blows * given.rounds
            await _struck(service, course.ledger, given.seed, blows)
            await asyncio.sleep(given.seconds - (time.monotonic() - begun))
            closing.set()
        course.seconds = time.monotonic() - begun
        course.peak = _peak((await service.engine()).pid)
        course.jobs = await client.listed()
        course.ledger.listed = {
            job: (each.get("metadata") or {}).get("seed") for job, each in course.jobs.items()
        }
        course.loads = [float(each["seconds"]) for each in _loads(service.log)]
        ended = [*course.loads, *service.lines("model_failed")]
        course.interrupted = len(service.lines("model_load_started")) - len(ended)
        course.waits, course.runs = times(service.log)
    return course


def _order(number: int, model: str, seed: int) -> Order:
    body = {
        "prompt": "a lighthouse at dusk",
        "width": SIDE,
        "height": SIDE,
        "steps": STEPS,
        "seed": number,
        "model": model,
    }
    return Order(number=number, key=f"switches-{seed}-{number}", body=body)


async def _struck(
    service: ServiceProcess, ledger: Ledger, seed: int, blows: tuple[Any, ...]
) -> None:
    """Strike each blow somewhere in the next load, then wait until the service is ready."""
    chance = random.Random(seed)
    killer = Killer(service, ledger, chance)
    for blow in blows:
        seen = len(service.lines("model_load_started"))

        async def loading(seen: int = seen) -> bool:
            return len(service.lines("model_load_started")) > seen

        await until(loading, LOAD_SECONDS, "a load")
        await killer.strike(blow)


def _loads(log: list[dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the loads on demand: those of a start have more to say."""
    return (each for each in log if each["event"] == "model_loaded" and "parked" in each)


def times(log: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Return how long each job waited for its first step, and how long each then took."""
    at: dict[tuple[str, str], float] = {}
    for line in log:
        if line["event"] in {"job_queued", "job_started", "job_ended"}:
            moment = datetime.fromisoformat(line["timestamp"]).timestamp()
            at.setdefault((line["job_id"], line["event"]), moment)

    def between(first: str, second: str) -> list[float]:
        return [
            moment - at[job, first]
            for (job, event), moment in at.items()
            if event == second and (job, first) in at
        ]

    return between("job_queued", "job_started"), between("job_started", "job_ended")


def _peak(pid: int) -> int:
    """Return the largest address space that a process had, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmPeak:")[2].split()[0]) * KIB
