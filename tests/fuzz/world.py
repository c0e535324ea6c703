"""One service's jobs, put together as the application does it, on a virtual loop."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from prometheus_client import Counter, Gauge

from service.access.allowance import Allowance, Charge, Limits
from service.config.table import Config
from service.core.events import JobFinished
from service.core.spec import GenerationSpec
from service.http.finished import metadata
from service.images.encode import files
from service.images.encoded import Encoded
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable import wiring
from service.jobs.durable.live_job import Durability, Terms
from service.jobs.durable.wiring import DurableJobs
from service.jobs.service import JobHandle
from service.telemetry.metrics import Metrics
from service.webhooks.delivery import Answer, Unreachable
from tests.support.simulation import clock
from tests.support.simulation.clock import EPOCH, VirtualLoop
from tests.support.simulation.fake_engine import FAKE_MODEL, FakeEngine
from tests.support.simulation.fake_models import FakeModel, catalog_with

END: Final = 12
"""Bytes of the last chunk of a PNG."""

PADDING: Final = bytes(300_000)
"""In each image, so that four of them are too many for a megabyte."""

SWEEP_SECONDS: Final = 1000.0
USUAL_SWEEP_SECONDS: Final = wiring.SWEEP_SECONDS
"""Virtual hours of sweeps once a minute would cost real seconds."""

MOST_IMAGES: Final = 1000
LIMITS: Final = Limits(images_per_day=MOST_IMAGES)
KEYS: Final = ("alice", "bob")

OTHER: Final = "other"
MODELS: Final = {
    name: FakeModel(info=replace(FAKE_MODEL, model_id=name), load_seconds=2.0, parked_seconds=0.5)
    for name in ("", OTHER)
}
"""One of them fits into memory at a time."""

CONFIG: Final = {
    "model_idle_seconds": 900.0,
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

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], _owner: str) -> Answer:
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
        clock.keep_time(self.loop)
        wiring.SWEEP_SECONDS = SWEEP_SECONDS  # type: ignore[misc]
        self.config = Config(data_dir=str(folder), **CONFIG)  # type: ignore[arg-type]
        self.engine = FakeEngine(step_seconds=None, loads=False, models=MODELS, room=1, host_room=1)
        self.metrics = Metrics()
        self.allowance = Allowance(clock=lambda: 0.0)
        self.charges: list[Charge] = []
        self.dispatcher = Dispatcher(
            [self.engine],
            self.metrics,
            self.config,
            weights=dict.fromkeys(KEYS, 1),
            models=catalog_with(OTHER),
        )
        self.durable = DurableJobs(
            self.config,
            self.dispatcher,
            self.metrics,
            self.allowance,
            encode=_encode,
            describe=metadata,
            post=receiver.post,
            spans=lambda: None,
        )
        self.durable.store._clock = self.durable.results._clock = lambda: self.wall
        self._opened = self.durable.opened()
        self.loop.do(self._opened.__aenter__())
        self.loop.do(self.dispatcher.start())

    @property
    def wall(self) -> float:
        """Seconds since 1970."""
        return EPOCH + self.loop.now

    async def submit(
        self, spec: GenerationSpec, owner: str, durability: Durability, **terms: Any
    ) -> JobHandle:
        """Submit a job, as a handler does."""

        def charge() -> Charge:
            charged = self.allowance.charge(owner, spec.num_images, LIMITS)
            self.charges.append(charged)
            return charged

        terms_with_charge = Terms(charge=charge, **terms)
        return await self.durable.jobs.submit(spec, owner, durability, terms_with_charge)

    def charged(self, key: str) -> int:
        """Return the images that a key was charged."""
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
        self.loop.call(self.dispatcher.drain)
        self.durable.jobs.closing.set()
        self.loop.advance(self.config.shutdown_timeout_seconds)
        self.loop.do(self.dispatcher.stop())
        self.loop.do(self._opened.__aexit__(None, None, None))
        self.loop.end()


def restore_time() -> None:
    """Give the modules their clock back."""
    wiring.SWEEP_SECONDS = USUAL_SWEEP_SECONDS  # type: ignore[misc]
    clock.restore_time()


def _encode(
    result: JobFinished, request: GenerationSpec, details: Mapping[str, Any]
) -> Sequence[Encoded]:
    return [
        Encoded(data=one.data[:-END] + PADDING + one.data[-END:], media_type=one.media_type)
        for one in files(result, request, details)
    ]


async def collect(events: Any, into: list[Any]) -> None:
    """Follow a stream of events to its end."""
    async for event in events:
        into.append(event)  # noqa: PERF401 - each as it comes
