"""One service's jobs, put together as the application does it, on a virtual loop."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from prometheus_client import Counter, Gauge

from service.config import Config
from service.diffusion.generation import GenerationRequest, JobFinished
from service.engine.fake import FakeEngine
from service.http.generate import metadata
from service.http.pictures import files
from service.jobs import consumer, durable, follower, job
from service.jobs.allowance import Allowance, Limits
from service.jobs.consumer import Consumer
from service.jobs.durable import Durable
from service.jobs.job import Job
from service.jobs.results import Encoded
from service.jobs.stored import StoredJob
from service.jobs.webhook import Answer, Unreachable
from service.telemetry.metrics import Metrics
from tests.fuzz.virtual import VirtualLoop

EPOCH: Final = 1.8e9
PADDING: Final = bytes(300_000)
"""Behind each picture, so that four of them are too many for a megabyte."""

SWEEP_SECONDS: Final = 1000.0
USUAL_SWEEP_SECONDS: Final = durable.SWEEP_SECONDS
"""Virtual hours of sweeps once a minute would cost real seconds."""

MOST_IMAGES: Final = 1000
LIMITS: Final = Limits(images_per_day=MOST_IMAGES)
KEYS: Final = ("alice", "bob")

CONFIG: Final = {
    "queue_size": 4,
    "max_concurrent_requests": 2,
    "max_attempts": 2,
    "results_max_age_seconds": 3600.0,
    "results_max_bytes": 2**20,
    "shutdown_timeout_seconds": 5.0,
}


class Receiver:
    """Who is told by webhook, and whether it listens."""

    def __init__(self) -> None:
        self.listens = True
        self.heard: list[tuple[str, bytes]] = []

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Take a delivery, or do not."""
        if not self.listens:
            raise Unreachable("it is asleep")
        self.heard.append((headers["Webhook-Id"], body))
        return Answer(status=204)


class World:
    """Everything that one process has in memory; the folder outlives it."""

    def __init__(self, folder: Path, receiver: Receiver, now: float) -> None:
        self.loop = VirtualLoop()
        self.loop.now = now
        clock = SimpleNamespace(
            monotonic=self.loop.time, time=lambda: EPOCH + self.loop.now, time_ns=time.time_ns
        )
        for module in (consumer, follower, job):
            module.time = clock  # type: ignore[attr-defined]
        durable.SWEEP_SECONDS = SWEEP_SECONDS  # type: ignore[misc]
        self.config = Config(data_dir=str(folder), **CONFIG)  # type: ignore[arg-type]
        self.engine = FakeEngine(step_seconds=None, loads=False)
        self.metrics = Metrics()
        self.allowance = Allowance(clock=lambda: 0.0)
        self.consumer = Consumer(
            self.engine, self.metrics, self.config, weights=dict.fromkeys(KEYS, 1)
        )
        self.durable = Durable(
            self.config,
            self.consumer,
            self.metrics,
            self.allowance,
            encode=_encode,
            describe=metadata,
            post=receiver.post,
            spans=lambda: None,
        )
        self.durable.store._clock = self.durable.results._clock = clock.time
        self._opened = self.durable.opened()
        self.loop.do(self._opened.__aenter__())
        self.loop.do(self.consumer.start())

    @property
    def wall(self) -> float:
        """Seconds since 1970."""
        return EPOCH + self.loop.now

    def order(self, key: str, request: GenerationRequest, **more: Any) -> tuple[Job, StoredJob]:
        """Return a job as the door makes it."""
        made = Job(request=request, key=key, created=self.loop.now)
        stored = StoredJob(id=made.id, key=key, request=request, created_at=self.wall, **more)
        return made, stored

    async def accept(self, job: Job, stored: StoredJob) -> StoredJob:
        """Hand a job in, as the door does."""
        images = job.request.num_images
        return await self.durable.book.accept(
            job, stored, lambda: self.allowance.charge(job.key, images, LIMITS)
        )

    def charged(self, key: str) -> int:
        """Return the pictures that a key was charged."""
        left = self.allowance.images_left(key, LIMITS)
        assert left is not None
        return MOST_IMAGES - left.remaining

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return what is on the disk, by id."""
        connection = self.durable.store._database._connection
        assert connection is not None
        found = connection.execute("SELECT * FROM jobs ORDER BY seq")
        names = [column[0] for column in found.description]
        rows = (dict(zip(names, row, strict=True)) for row in found.fetchall())
        return {row["id"]: row for row in rows}

    def total(self, metric: Counter | Gauge) -> int:
        """Return the sum of a metric over its labels."""
        samples = [sample for family in metric.collect() for sample in family.samples]
        return int(sum(one.value for one in samples if not one.name.endswith("_created")))

    def die(self) -> None:
        """End as a killed process: from here on nothing reaches the disk."""
        database = self.durable.store._database
        database._close()
        database._thread = None
        self.durable.results.folder = Path("/nonexistent")
        self.loop.end()

    def stop(self) -> None:
        """End as on SIGTERM, with what is unfinished left for the next start."""
        self.loop.call(self.consumer.drain)
        self.durable.book.closing.set()
        self.loop.advance(self.config.shutdown_timeout_seconds)
        self.loop.do(self.consumer.stop())
        self.loop.do(self._opened.__aexit__(None, None, None))
        self.loop.end()


def restore_time() -> None:
    """Give the modules their clock back."""
    durable.SWEEP_SECONDS = USUAL_SWEEP_SECONDS  # type: ignore[misc]
    for module in (consumer, follower, job):
        module.time = time  # type: ignore[attr-defined]


def _encode(
    result: JobFinished, request: GenerationRequest, details: Mapping[str, Any]
) -> Sequence[Encoded]:
    return [
        Encoded(data=one.data + PADDING, media_type=one.media_type)
        for one in files(result, request, details)
    ]


async def collect(events: Any, into: list[Any]) -> None:
    """Follow a stream of events to its end."""
    async for event in events:
        into.append(event)  # noqa: PERF401 - each as it comes
