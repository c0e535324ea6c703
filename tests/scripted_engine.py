"""An engine whose events a test decides, and what its tests share."""

import asyncio

from service.diffusion.generation import (
    GenerationRequest,
    JobFinished,
    ModelInfo,
)
from service.engine.base import Engine, EngineState
from service.engine.messages import EngineExited, EngineReady
from service.jobs.consumer import Consumer
from service.jobs.job import Job
from service.telemetry.metrics import Metrics

MODEL = ModelInfo(
    model_id="demo",
    version="demo-1",
    family="sd",
    demo=True,
    device="cpu",
    gpu=False,
    dtype="float32",
    load_seconds=1.0,
)


class ScriptedEngine(Engine):
    """Write down commands; the test plays the events."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []

    async def start(self, listener) -> None:
        self.state = EngineState.LOADING
        self.tell = listener

    async def stop(self) -> None:
        self.state = EngineState.STOPPED

    def generate(self, job_id, request) -> None:
        self.started.append(job_id)

    def cancel(self, job_id) -> None:
        self.cancelled.append(job_id)

    async def ready(self) -> None:
        self.state, self.model = EngineState.READY, MODEL
        self.tell(EngineReady(model=MODEL))
        await settle()

    async def dies(self, restart_seconds: float = 0.0) -> None:
        self.state = EngineState.RESTARTING
        self.tell(EngineExited(exit_code=-9, restarts=1, restart_seconds=restart_seconds))
        await settle()

    async def finishes(self, job: Job) -> None:
        self.tell(JobFinished(job_id=job.id, pictures=()))
        await settle()


async def settle() -> None:
    """Let the consumer task run until it waits again."""
    for _ in range(5):
        await asyncio.sleep(0)


def job(**fields) -> Job:
    return Job(request=GenerationRequest(prompt="a cat", **fields))


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None
    return found


async def submitted(consumer: Consumer, *jobs: Job) -> None:
    for each in jobs:
        consumer.submit(each)
        await settle()
