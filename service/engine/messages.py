"""What crosses the wall between the service and the engine: plain values, no torch."""

import signal
from dataclasses import dataclass, field

from service.diffusion.generation import (
    Calibrated,
    Capacity,
    GenerationRequest,
    MemoryUse,
    ModelInfo,
    Outcome,
    Usual,
)


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Make pictures; the job's id names every event that follows."""

    job_id: str
    request: GenerationRequest


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """Stop a job before its next step; answered by ``JobCancelled`` unless it just ended."""

    job_id: str


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Begin or end to send previews of a job, which may come later than this."""

    job_id: str
    wanted: bool


@dataclass(frozen=True, kw_only=True)
class Shutdown:
    """End the engine after the current step."""


Command = Generate | Cancel | Preview | Shutdown


@dataclass(frozen=True, kw_only=True)
class Began:
    """A stage begins: a sign of life, and what may take long now.

    ``fetch`` (from the hub) and ``load`` of a model, or a stage of the step loop.
    """

    stage: str
    pictures: int = 0


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
    passing: bool = False
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


Said = Began | EngineReady | EngineFailed | Capacity | Calibrated | Usual | Outcome
"""What an engine says of itself."""

Event = Said | EngineExited
