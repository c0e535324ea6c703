"""What crosses the wall between the service and the engine: plain values, no torch."""

import signal
from dataclasses import dataclass, field

from service.core.capacity import Capacity, MemoryUse
from service.core.events import (
    AdaptersChanged,
    BatchCalibrated,
    LoopEvent,
    ModelFailed,
    ModelLoaded,
    ModelLoading,
    ModelsResident,
    ModelUnloaded,
    StepBaseline,
    UnloadReason,
)
from service.core.inputs import EngineInputs
from service.core.model import ModelInfo
from service.core.spec import GenerationSpec
from service.core.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Make images; every event that follows has the job's id and the epoch of the attempt."""

    job_id: str
    epoch: int
    request: GenerationSpec
    inputs: EngineInputs | None = None
    """Pixels of the images that the request refers to."""


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """Stop a job before its next step; answered by ``JobCancelled`` unless it just ended."""

    job_id: str


@dataclass(frozen=True, kw_only=True)
class Interrupt:
    """End a job early: each image is decoded as it is after one more step at most.

    Answered by ``JobFinished``. An image that has not begun takes one step.
    """

    job_id: str


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Begin or end to send previews of a job, which may come later than this."""

    job_id: str
    wanted: bool


@dataclass(frozen=True, kw_only=True)
class Shutdown:
    """End the engine after the current step."""


@dataclass(frozen=True, kw_only=True)
class LoadModel:
    """Load a model while the batch goes on; an empty id means the default one.

    Answered by ``ModelLoaded``, at once where it is loaded, or by ``ModelFailed``. One model is
    loaded at a time, in the order in which they were asked for. Models with jobs are never in its
    way for good: it waits until they have none, and then ``ModelLoading`` comes.
    """

    model_id: str


@dataclass(frozen=True, kw_only=True)
class UnloadModel:
    """Free the memory of a model; answered by ``ModelUnloaded`` unless it has jobs."""

    model_id: str
    reason: UnloadReason = UnloadReason.ASKED


Command = Generate | Cancel | Interrupt | Preview | LoadModel | UnloadModel | Shutdown


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    """A stage begins: a sign of life, and what may take long now."""

    stage: Stage
    images: int = 0


@dataclass(frozen=True, kw_only=True)
class EngineReady:
    """The model is loaded and the first job may come."""

    model: ModelInfo
    memory: MemoryUse = field(default_factory=MemoryUse)


@dataclass(frozen=True, kw_only=True)
class EngineFailed:
    """The model cannot be loaded."""

    code: str
    detail: str
    transient: bool = False
    """Starting again may help, as it does where others hold the memory for a while."""


@dataclass(frozen=True, kw_only=True)
class EngineExited:
    """The engine's process ended without being asked; jobs in it are lost to it.

    ``exit_code`` is negative for a signal (-9: killed), as in ``subprocess``.
    """

    exit_code: int | None
    restarts: int
    cause: str = ""
    """Why it was ended by its supervisor, or left by itself; empty where only the code tells."""
    restart_seconds: float = field(default=0.0, compare=False)
    """Until it is started again."""

    @property
    def reason(self) -> str:
        """Why it ended, in one of few words; ``killed`` by others is often the kernel's doing."""
        if self.cause:
            return self.cause
        if self.exit_code is None:
            return "not_started"
        if self.exit_code >= 0:
            return "exited"
        return "killed" if self.exit_code == -signal.SIGKILL else "crashed"


@dataclass(frozen=True, kw_only=True)
class Held:
    """An attempt at a job that an engine has in work, or has the end of."""

    job_id: str
    epoch: int


@dataclass(frozen=True, kw_only=True)
class EngineAdopted:
    """The engine is heard again, or by a new service: it went on with these attempts.

    Those that no service takes up are cancelled. What became of the others follows.
    """

    jobs: tuple[Held, ...]


EngineEvent = (
    StageStarted
    | EngineReady
    | EngineFailed
    | ModelLoading
    | ModelLoaded
    | ModelFailed
    | ModelUnloaded
    | ModelsResident
    | Capacity
    | BatchCalibrated
    | StepBaseline
    | AdaptersChanged
    | LoopEvent
)
"""What an engine says of itself."""

Event = EngineEvent | EngineExited | EngineAdopted
