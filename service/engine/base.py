"""The Engine interface: the same for a child process, a thread and the fake."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum

from service.core.events import UnloadReason
from service.core.inputs import InputSource
from service.core.model import ModelInfo
from service.core.spec import GenerationSpec
from service.engine.protocol import Event
from service.telemetry.labels import FIRST_ENGINE

Listener = Callable[[Event], None]


class EngineState(StrEnum):
    """Where an engine is in its life."""

    STOPPED = "stopped"
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"


class Engine(ABC):
    """A place where denoising steps run.

    ``generate``, ``cancel`` and ``interrupt`` return at once; what happens comes to the listener as
    events, always on the event loop that called ``start``.
    """

    name: str = FIRST_ENGINE
    """Name of its slot, in the log."""
    node: str = ""
    """Address of its machine, where that is a node of a cluster."""
    state: EngineState = EngineState.STOPPED
    model: ModelInfo | None = None
    restarts: int = 0
    failure: str = ""
    """Why the model cannot be loaded, when the state is ``FAILED``."""

    @property
    def silence(self) -> float:
        """Seconds since it last said something; 0 when it may be silent."""
        return 0.0

    @property
    def late(self) -> bool:
        """Whether it has been silent for half as long as it takes to be taken for dead."""
        return False

    @abstractmethod
    async def start(self, listener: Listener) -> None:
        """Begin to load the model; ``EngineReady`` or ``EngineFailed`` follows."""

    @abstractmethod
    async def stop(self) -> None:
        """End the engine, whatever it is doing; no event follows."""

    @abstractmethod
    def generate(
        self,
        job_id: str,
        request: GenerationSpec,
        epoch: int,
        inputs: InputSource | None = None,
    ) -> None:
        """Let a job join the running batch before the next step.

        ``epoch`` is the number of the attempt; it is in every event that follows. ``inputs`` reads
        the images that the request refers to, on a thread; where it raises, ``JobFailed`` follows.
        """

    def adopt(self, job_id: str, request: GenerationSpec, epoch: int) -> None:
        """Take up an attempt that ``EngineAdopted`` named; its events follow.

        Only an engine that can go on without its service says that it did.
        """
        raise NotImplementedError

    @abstractmethod
    def cancel(self, job_id: str) -> None:
        """Take a job out of the batch before the next step; unknown ids are ignored."""

    @abstractmethod
    def interrupt(self, job_id: str) -> None:
        """End a job early with its unfinished images, after the step that they are in.

        ``JobFinished`` follows as for any other job; unknown ids are ignored.
        """

    @abstractmethod
    def load_model(self, model_id: str) -> None:
        """Load a model next to those that are; ``ModelLoaded`` or ``ModelFailed`` follows."""

    @abstractmethod
    def unload_model(self, model_id: str, reason: UnloadReason) -> None:
        """Free the memory of a model without jobs; ``ModelUnloaded`` follows."""

    def preview(self, job_id: str, *, wanted: bool) -> None:  # noqa: B027 - not every engine can
        """Begin or end to send ``Previewed`` events of a job, before or after ``generate``.

        An engine that makes none does nothing.
        """
