"""Jobs that are kept on the disk, without the service around them."""

import struct
from pathlib import Path

from service.access.allowance import Allowance
from service.config.table import Config
from service.core.spec import GenerationSpec
from service.images.encoded import Encoded
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable.live_job import Durability, Terms
from service.jobs.durable.wiring import DurableJobs
from service.jobs.job import Job
from service.jobs.results.container import PNG_BEGIN, PNG_END
from service.jobs.store.stored import StoredJob
from service.telemetry.metrics import Metrics


def png_of(width: int, height: int, content: bytes) -> bytes:
    """Return what begins and ends as a PNG of this size; what is between is none."""
    return b"".join((PNG_BEGIN, struct.pack(">2L", width, height), content, PNG_END))


REQUEST = GenerationSpec(prompt="a cat", width=64, height=64, steps=1)
KEPT = [Encoded(data=png_of(64, 64, b"an image"), media_type="image/png")]


async def _nowhere(*_args):
    raise AssertionError("there is no webhook")


def kept(folder: Path, dispatcher: Dispatcher) -> DurableJobs:
    """Return what keeps the jobs of a dispatcher."""
    return DurableJobs(
        Config(data_dir=str(folder)),
        dispatcher,
        Metrics(),
        Allowance(),
        encode=lambda *_: KEPT,
        describe=lambda *_: {"model_version": "fake-1"},
        post=_nowhere,
        spans=lambda: None,
    )


async def over(folder: DurableJobs, job_id: str) -> StoredJob:
    """Return a job when it is over."""
    stored, live = await folder.jobs.get(job_id, "anonymous")
    if live is not None:
        await live.settled.wait()
        stored, _ = await folder.jobs.get(job_id, "anonymous")
    return stored


async def accepted(
    folder: DurableJobs, request: GenerationSpec = REQUEST, terms: Terms | None = None
) -> Job:
    """Submit a job that will be run whatever becomes of its client, and return it."""
    handle = await folder.jobs.submit(request, "anonymous", Durability.PROMISED, terms)
    assert handle.live is not None
    return handle.live.job
