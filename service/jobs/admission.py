"""The door in front of the queue: who is let in, and what those are told who are not."""

import math
import time
from collections.abc import Callable, Mapping

from service.config import Config
from service.diffusion.generation import Capacity, GenerationRequest
from service.engine.base import Engine, EngineState
from service.errors import (
    EngineUnavailable,
    ModelUnavailable,
    OutOfMemory,
    QueueFull,
    ServiceError,
    ShuttingDown,
)
from service.jobs.circuit import Circuit, CircuitState
from service.jobs.estimate import LOAD_SECONDS, Estimate
from service.jobs.fitting import lack
from service.jobs.job import Job
from service.jobs.places import Places
from service.jobs.position import Outlook, Position
from service.jobs.queue import JobQueue, Limit
from service.telemetry.metrics import Metrics


class Admission:
    """Refuses what could not be worked on, before it costs anything.

    ``running`` are the jobs in the engine by id: the consumer's own mapping, not a copy.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        queue: JobQueue,
        running: Mapping[str, Job],
        estimate: Estimate,
        circuit: Circuit,
        metrics: Metrics,
        config: Config,
    ) -> None:
        self.draining = False
        """Whether the service is about to end and takes nothing new."""
        self.capacity: Capacity | None = None
        """What memory pictures may take, as the engine said last."""
        self._engine = engine
        self._queue = queue
        self._running = running
        self._estimate = estimate
        self._circuit = circuit
        self._metrics = metrics
        self._config = config
        self.outlook = Outlook(queue, estimate, batch_limit=config.max_concurrent_requests)
        self._places = Places(queue)

    @property
    def ready(self) -> bool:
        """Whether new work is taken and can be worked on now."""
        try:
            self.check_ready()
        except ServiceError:
            return False
        return True

    def check_ready(self) -> None:
        """Say what keeps new work from being taken, or from being worked on at once.

        Raises:
            ShuttingDown: no new work is taken any more.
            EngineUnavailable: the engine keeps ending, or has been silent for too long.
            ModelUnavailable: the model is not loaded, or not yet.
            OutOfMemory: not even the smallest picture fits.

        """
        if self.draining:
            raise ShuttingDown("Send requests to another instance.")
        self._check_circuit()
        if self._engine.state is not EngineState.READY:
            raise ModelUnavailable(f"The engine is {self._engine.state.value}.")
        if self._engine.late:
            raise EngineUnavailable(
                f"The engine has work and has said nothing for {self._engine.silence:.0f} s."
            )
        side = self._config.min_size
        if error := self._lack(GenerationRequest(prompt="", width=side, height=side)):
            raise error

    def admit(self, job: Job, make_room: Callable[[], None]) -> None:
        """Let ``job`` into the queue or say why not; ``make_room`` starts what can be started.

        Raises:
            ShuttingDown: no new work is taken any more.
            ModelUnavailable: the model could not be loaded.
            EngineUnavailable: the engine keeps ending; with the seconds until the next try.
            OutOfMemory: its pictures do not fit, not even one at a time.
            QueueFull: with the seconds after which there is a place.

        """
        if self.draining:
            raise self._refused("draining", ShuttingDown("Send the request to another instance."))
        if self._engine.state is EngineState.FAILED:
            raise self._refused("model_unavailable", ModelUnavailable(self._engine.failure))
        try:
            self._check_circuit()
        except EngineUnavailable as error:
            raise self._refused("circuit_open", error) from None
        if (lacking := self._lack(job.request)) is not None:
            raise self._refused("memory", lacking)
        if self._queue.limit(job.key) is not None:
            make_room()  # The consumer task may not have had its turn yet.
        now = time.monotonic()
        if (limit := self._places.limit(job, lambda: self._starts(job.key), now)) is not None:
            raise self._refused("queue_full", self._no_place(job, limit, now))
        self._places.enter(job, now)
        self.outlook.accepted(job, self._running.values(), now)

    def _lack(self, request: GenerationRequest) -> OutOfMemory | None:
        if self.capacity is None:
            return None
        return lack(request, self.capacity, smallest=self._config.min_size)

    def position(self, job: Job) -> Position | None:
        """Return where a waiting job stands; None for one that does not wait."""
        return self.outlook.position(job, self._running.values(), delay=self._loading)

    @property
    def circuit(self) -> CircuitState:
        """Whether work flows to the engine."""
        return self._circuit.state(ready=self._engine.state is EngineState.READY)

    def _check_circuit(self) -> None:
        """Let one job through an open circuit when the engine is back and has nothing to do.

        Without it nothing would ever close the circuit of a service whose queue is empty.
        """
        state = self.circuit
        if state is CircuitState.CLOSED:
            return
        if state is CircuitState.HALF_OPEN and not self._running and self._queue.empty():
            return
        # Jobs accepted before go first, one at a time: the first one that ends well is awaited.
        probe = [*self._running.values(), *self._queue.waiting][:1]
        seconds = math.ceil(
            max(1.0, self._circuit.wait_seconds + self._loading + self._estimate.seconds(probe))
        )
        raise EngineUnavailable(
            f"The engine ended {self._circuit.crashes} times in a row and is being tried with "
            f"what was accepted before; retry in {seconds} s.",
            retry_after=seconds,
        )

    @property
    def _loading(self) -> float:
        """Seconds until the engine can begin: 0, or the time that loading took before."""
        if self._engine.state is EngineState.READY:
            return 0.0
        return self._engine.model.load_seconds if self._engine.model else LOAD_SECONDS

    def _starts(self, key: str) -> list[float]:
        return self.outlook.starts(self._running.values(), key=key, delay=self._loading)

    def _no_place(self, job: Job, limit: Limit, now: float) -> QueueFull:
        seconds = self._places.retry_after(job, self._starts(job.key), now)
        free = self._queue.free
        reason = {
            Limit.QUEUE: f"{self._config.queue_size} requests are waiting",
            Limit.KEY: f"{self._queue.held(job.key)} requests of your key are waiting, and the "
            f"{free} free places are kept for other keys",
            Limit.PROMISED: f"The {free} free places are promised to requests refused before",
        }[limit]
        return QueueFull(f"{reason}; retry in {seconds} s.", retry_after=seconds)

    def _refused(self, reason: str, error: ServiceError) -> ServiceError:
        self._metrics.refused.labels(reason).inc()
        return error
