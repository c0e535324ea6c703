"""An engine whose events a test decides, and what its tests share."""

import asyncio

from service.core.events import JobFinished, Stepped, UnloadReason
from service.core.model import ModelInfo
from service.core.spec import GenerationSpec
from service.engine.base import Engine, EngineState
from service.engine.protocol import EngineExited, EngineReady
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import Job
from service.telemetry.metrics import Metrics
from tests.support.samples import sample

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
        self.interrupted: list[str] = []
        self.loads: list[str] = []
        self.unloads: list[tuple[str, UnloadReason]] = []

    async def start(self, listener) -> None:
        self.state = EngineState.LOADING
        self.tell = listener

    async def stop(self) -> None:
        self.state = EngineState.STOPPED

    def generate(self, job_id, request, epoch, inputs=None) -> None:
        self.started.append(job_id)

    def cancel(self, job_id) -> None:
        self.cancelled.append(job_id)

    def interrupt(self, job_id) -> None:
        self.interrupted.append(job_id)

    def load_model(self, model_id) -> None:
        self.loads.append(model_id)

    def unload_model(self, model_id, reason) -> None:
        self.unloads.append((model_id, reason))

    async def ready(self) -> None:
        self.state, self.model = EngineState.READY, MODEL
        self.tell(EngineReady(model=MODEL))
        await settle()

    async def dies(self, restart_seconds: float = 0.0) -> None:
        self.state = EngineState.RESTARTING
        self.tell(EngineExited(exit_code=-9, restarts=1, restart_seconds=restart_seconds))
        await settle()

    async def finishes(self, job: Job) -> None:
        self.tell(JobFinished(job_id=job.id, epoch=job.epoch, images=()))
        await settle()


async def settle() -> None:
    """Let the dispatcher task run until it waits again."""
    for _ in range(5):
        await asyncio.sleep(0)


def job(**fields) -> Job:
    return Job(request=GenerationSpec(prompt="a cat", **fields))


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = sample(metrics, name, **labels)
    assert found is not None
    return found


def stepped(job: Job, done: int, *, seconds: float, pixels: int = 512**2) -> Stepped:
    """Return a step of a job alone, in its latest attempt."""
    return Stepped(
        progress={job.id: done},
        shares={job.id: seconds},
        epochs={job.id: job.epoch},
        batch_size=1,
        pixels=pixels,
        seconds=seconds,
    )


async def submitted(dispatcher: Dispatcher, *jobs: Job) -> None:
    for each in jobs:
        dispatcher.submit(each)
        await settle()
