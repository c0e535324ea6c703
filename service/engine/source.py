"""Source of the engines of a service: fixed ones, or engines that come and go."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from service.core.events import UnloadReason
from service.core.inputs import InputSource
from service.core.spec import GenerationSpec
from service.engine.base import Engine, EngineState, Listener
from service.telemetry.metrics import Metrics

ENGINES_MOST: Final = 64
"""Engines of one service on one machine."""

OnEngine = Callable[[Engine], object]
OnHeard = Callable[[], object]


class EngineSource(ABC):
    """Tells the dispatcher which engines there are, on the event loop that called ``start``."""

    engines: Sequence[Engine] = ()
    """Engines that are there before ``start``; the dispatcher starts them."""

    engines_join: bool = False
    """Whether engines come and go: then one that fails says nothing of those to come."""

    adoption_seconds: float = 0.0
    """After a start, how long an engine may go on unheard with jobs of before; 0 for not at all.

    A job that ran when the service ended starts nowhere else before.
    """

    def unreachable(self) -> float:
        """Return for how many seconds no engine could be found; 0 while that is not too long."""
        return 0.0

    def measure(self, metrics: Metrics) -> None:  # noqa: B027 - not every source has its own
        """Add what the source itself measures; before ``start``."""

    @abstractmethod
    async def start(self, joined: OnEngine, leaving: OnEngine, heard: OnHeard) -> None:
        """Call ``joined`` with each engine that comes, and ``leaving`` when it is to go.

        The dispatcher starts an engine that joined. It stops one that leaves when the jobs in
        it have ended. ``heard`` is called once: when all engines that are known have told which
        jobs they went on with.
        """

    @abstractmethod
    async def stop(self) -> None:
        """End what finds engines; the dispatcher has stopped them."""


class FixedEngines(EngineSource):
    """Engines that are there from the start and never leave."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = tuple(engines)

    async def start(self, joined: OnEngine, leaving: OnEngine, heard: OnHeard) -> None:
        """Do nothing: none comes or goes, or outlives the service."""

    async def stop(self) -> None:
        """Do nothing."""


def source_of(engines: Engine | Sequence[Engine] | EngineSource) -> EngineSource:
    """Return the source of one engine, of several, or the one that is given."""
    if isinstance(engines, EngineSource):
        return engines
    return FixedEngines([engines] if isinstance(engines, Engine) else engines)


class AbsentEngine(Engine):
    """Holds a place for an engine that has not come yet: it stays ``LOADING``."""

    async def start(self, listener: Listener) -> None:  # noqa: ARG002 - nothing is to be heard
        """Wait for an engine."""
        self.state = EngineState.LOADING

    async def stop(self) -> None:
        """Wait no more."""
        self.state = EngineState.STOPPED

    def generate(
        self, job_id: str, request: GenerationSpec, epoch: int, inputs: InputSource | None = None
    ) -> None:
        """Never asked: it is not ready."""
        raise NotImplementedError

    def cancel(self, job_id: str) -> None:
        """Have no job to cancel."""

    def interrupt(self, job_id: str) -> None:
        """Have no job to end."""

    def load_model(self, model_id: str) -> None:
        """Load nothing."""

    def unload_model(self, model_id: str, reason: UnloadReason) -> None:
        """Have no model to unload."""
