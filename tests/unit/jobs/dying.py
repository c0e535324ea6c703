"""A process that keeps jobs, and is killed at the write that it is told."""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.config import Config
from service.diffusion.generation import GenerationRequest, JobFinished
from service.engine.fake import FakeEngine
from service.jobs.allowance import Allowance
from service.jobs.consumer import Consumer
from service.jobs.durable import Durable
from service.jobs.job import Job
from service.jobs.results import Encoded
from service.jobs.stored import StoredJob
from service.jobs.webhook import Answer
from service.telemetry.metrics import Metrics

IDEMPOTENT = ("first", "second")
HOOKED = ("open", "write", "fsync", "close", "utime", "replace", "unlink")
"""How ``Results`` changes the disk; SQLite's statements are traced by SQLite."""

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
    return [Encoded(data=one.pixels, media_type="image/png") for one in result.pictures]


def parts(folder: Path, *, ahead: float = 0.0) -> tuple[Consumer, Durable]:
    """Put together what keeps jobs in ``folder``; its clock may be ahead."""
    config = Config(data_dir=str(folder), results_max_age_seconds=AGE_SECONDS)
    metrics, allowance = Metrics(), Allowance()
    consumer = Consumer(FakeEngine(), metrics, config)
    durable = Durable(
        config,
        consumer,
        metrics,
        allowance,
        encode=_encode,
        describe=lambda job, _: {"id": job.id},
        post=_post,
        spans=lambda: None,
    )
    durable.store._clock = durable.results._clock = lambda: time.time() + ahead
    return consumer, durable


def order(idempotency_key: str) -> tuple[Job, StoredJob]:
    """Return a job as the door makes it."""
    request = GenerationRequest(prompt="a boat", width=64, height=64, steps=1, num_images=2)
    job = Job(request=request)
    stored = StoredJob(
        id=job.id,
        key=job.key,
        request=request,
        created_at=time.time(),
        idempotency_key=idempotency_key,
        idempotency_digest="same",
        webhook="https://example.org/told",
    )
    return job, stored


async def _work(folder: Path, say: Callable[[str, str], None]) -> None:
    consumer, durable = parts(folder)
    async with durable.opened():
        await consumer.start()
        made = []
        for key in IDEMPOTENT:
            stored = await durable.book.accept(*order(key), lambda: None)
            say("accepted", stored.id)
            made.append(stored.id)
        for job_id in made:
            stored = await durable.book.wait(job_id, "anonymous")
            say("finished", job_id)
        # As the sweep does it, for the first of them.
        for job_id in await durable.store.expire(ids=made[:1]):
            await asyncio.to_thread(durable.results.delete, job_id)
        await consumer.stop()


def live(folder: Path, told: Path, nth: int) -> None:
    """Accept, finish and forget jobs; what a client was told goes to ``told``."""
    write, journal = os.write, os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    Trap(nth).set()
    asyncio.run(
        _work(folder, lambda word, job: (write(journal, f"{word} {job}\n".encode()), None)[1])
    )
