"""An engine without steps: each job takes the seconds that it was given."""

import asyncio
from collections.abc import Mapping

from service.core.events import JobFinished, Stepped, UnloadReason
from service.core.inputs import InputSource
from service.core.spec import GenerationSpec
from service.core.stage import StageTimes
from service.core.work import pixels
from service.engine.base import Engine, EngineState, Listener
from service.engine.protocol import EngineReady
from tests.support.simulation.fake_engine import FAKE_MODEL


class TimedEngine(Engine):
    """Works on its jobs at the same time, each for its seconds; tells of ``reports`` steps of each.

    An engine on another machine tells of its steps twice a second at most, however many it does.
    """

    def __init__(self, seconds: Mapping[str, float], *, reports: int = 0) -> None:
        """Set up; ``seconds`` are those of each job, by id."""
        self._seconds, self._reports = seconds, reports
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def start(self, listener: Listener) -> None:
        """Be ready at once."""
        self._tell, self.state, self.model = listener, EngineState.READY, FAKE_MODEL
        listener(EngineReady(model=FAKE_MODEL))

    async def stop(self) -> None:
        """Forget all jobs."""
        self.state = EngineState.STOPPED
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def generate(
        self,
        job_id: str,
        request: GenerationSpec,
        epoch: int,
        inputs: InputSource | None = None,
    ) -> None:
        """Begin a job."""
        del inputs  # It makes no images.
        self._go_on(job_id, request, epoch, 0)

    def cancel(self, job_id: str) -> None:
        """Take a job out."""
        if timer := self._timers.pop(job_id, None):
            timer.cancel()

    def interrupt(self, job_id: str) -> None:
        """Let a job take its time: nobody interrupts one here."""

    def load_model(self, model_id: str) -> None:
        """Load no model: it has one."""

    def unload_model(self, model_id: str, reason: UnloadReason) -> None:
        """Keep its model."""

    def _go_on(self, job_id: str, request: GenerationSpec, epoch: int, told: int) -> None:
        part = self._seconds[job_id] / (self._reports + 1)
        heard = self._stepped if told < self._reports else self._finish
        self._timers[job_id] = asyncio.get_running_loop().call_later(
            part, heard, job_id, request, epoch, told
        )

    def _stepped(self, job_id: str, request: GenerationSpec, epoch: int, told: int) -> None:
        seconds = self._seconds[job_id] / (self._reports + 1)
        steps = max(1, request.steps * (told + 1) // (self._reports + 1))
        self._tell(
            Stepped(
                progress={job_id: min(steps, request.steps)},
                shares={job_id: seconds},
                epochs={job_id: epoch},
                batch_size=1,
                pixels=pixels(request),
                seconds=seconds,
                model_id=request.model,
            )
        )
        if job_id in self._timers:
            self._go_on(job_id, request, epoch, told + 1)

    def _finish(self, job_id: str, request: GenerationSpec, epoch: int, told: int) -> None:
        del request, told
        del self._timers[job_id]
        times = StageTimes(denoise=self._seconds[job_id])
        self._tell(JobFinished(job_id=job_id, epoch=epoch, images=(), times=times))
