"""Jobs that are kept on the disk, without the service around them."""

from pathlib import Path

from service.config import Config
from service.diffusion.generation import GenerationRequest
from service.jobs.allowance import Allowance
from service.jobs.consumer import Consumer
from service.jobs.durable import Durable
from service.jobs.job import Job
from service.jobs.results import Encoded
from service.jobs.stored import StoredJob
from service.telemetry.metrics import Metrics

REQUEST = GenerationRequest(prompt="a cat", width=64, height=64, steps=1)
KEPT = [Encoded(data=b"a picture", media_type="image/png")]


async def _nowhere(*_args):
    raise AssertionError("there is no webhook")


def kept(folder: Path, consumer: Consumer) -> Durable:
    """Return what keeps the jobs of a consumer."""
    return Durable(
        Config(data_dir=str(folder)),
        consumer,
        Metrics(),
        Allowance(),
        encode=lambda *_: KEPT,
        describe=lambda *_: {"model_version": "fake-1"},
        post=_nowhere,
        spans=lambda: None,
    )


def row(job: Job) -> StoredJob:
    """Return the row of a new job."""
    return StoredJob(id=job.id, key=job.key, request=job.request, created_at=1.0)
