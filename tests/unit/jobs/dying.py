"""A process that keeps jobs, and is killed at the write that it is told."""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.access.allowance import Allowance
from service.config.table import Config
from service.core.events import JobFinished
from service.core.spec import GenerationSpec
from service.images.encoded import Encoded
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable.live_job import Durability, Terms
from service.jobs.durable.wiring import DurableJobs
from service.telemetry.metrics import Metrics
from service.webhooks.delivery import Answer
from tests.support.jobs.kept_jobs import over, png_of
from tests.support.jobs.photos import left_half, png, uploaded
from tests.support.simulation.fake_engine import FakeEngine

IDEMPOTENT = ("first", "second")
HOOKED = ("open", "write", "fsync", "close", "utime", "replace", "unlink")
"""How images and input images change the disk; SQLite's statements are traced by SQLite."""

AGE_SECONDS = 60.0


class Trap:
    """Kills its process at the ``nth`` write."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def __call__(self, *_: object) -> None:
        """Count one write, which is about to happen."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def set(self) -> None:
        """Stand before everything that this process does to its disk."""
        connect = sqlite3.connect

        def watched(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            connection.set_trace_callback(self)
            return connection

        sqlite3.connect = watched  # type: ignore[assignment]
        for name in HOOKED:
            setattr(os, name, self._before(getattr(os, name), halved=name == "write"))

    def _before(self, call: Callable[..., Any], *, halved: bool) -> Callable[..., Any]:
        def hooked(*args: Any, **kwargs: Any) -> Any:
            self()
            if halved and len(args[1]) > 1:  # A write may take a part of it only.
                return call(args[0], args[1][: len(args[1]) // 2])
            return call(*args, **kwargs)

        return hooked


async def _post(*_: object) -> Answer:
    return Answer(status=204)


def _encode(result: JobFinished, *_: object) -> list[Encoded]:
    return [
        Encoded(data=png_of(64, 64, bytes(one.pixels)), media_type="image/png")
        for one in result.images
    ]


def parts(folder: Path, *, ahead: float = 0.0) -> tuple[Dispatcher, DurableJobs]:
    """Put together what keeps jobs in ``folder``; its clock may be ahead."""
    config = Config(data_dir=str(folder), results_max_age_seconds=AGE_SECONDS)
    metrics, allowance = Metrics(), Allowance()
    dispatcher = Dispatcher([FakeEngine()], metrics, config)
    durable = DurableJobs(
        config,
        dispatcher,
        metrics,
        allowance,
        encode=_encode,
        describe=lambda job, _: {"id": job.id},
        post=_post,
        spans=lambda: None,
    )
    clock = lambda: time.time() + ahead  # noqa: E731
    durable.store._clock = durable.results._clock = durable.inputs._clock = clock
    return dispatcher, durable


async def accepted(durable: DurableJobs, idempotency_key: str) -> str:
    """Submit a job as a handler does, and return its id."""
    spec = GenerationSpec(prompt="a boat", width=64, height=64, steps=1, num_images=2)
    spec, uploads = uploaded(durable.inputs, png(), left_half(), spec)
    terms = Terms(
        uploads=uploads,
        idempotency_key=idempotency_key,
        idempotency_digest="same",
        webhook="https://example.org/told",
    )
    try:
        handle = await durable.jobs.submit(spec, "anonymous", Durability.PROMISED, terms)
    finally:
        for upload in uploads.values():
            upload.discard()
    return handle.stored.id


async def _work(folder: Path, say: Callable[[str, str], None]) -> None:
    dispatcher, durable = parts(folder)
    async with durable.opened():
        await dispatcher.start()
        made = []
        for key in IDEMPOTENT:
            made.append(await accepted(durable, key))
            say("accepted", made[-1])
        for job_id in made:
            await over(durable, job_id)
            say("finished", job_id)
        # As the sweep does it, for the first of them.
        for job_id in await durable.store.expire(ids=made[:1]):
            await durable.results.delete(job_id)
            await durable.inputs.delete(job_id)
        await dispatcher.stop()


def live(folder: Path, told: Path, nth: int) -> None:
    """Accept, finish and forget jobs; what a client was told goes to ``told``."""
    write, journal = os.write, os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    Trap(nth).set()
    asyncio.run(
        _work(folder, lambda word, job: (write(journal, f"{word} {job}\n".encode()), None)[1])
    )
