"""Admission of jobs to the queue, and the errors of those that are refused."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

from service import errors
from service.config.table import Config
from service.jobs.dispatch.circuit import CircuitState
from service.jobs.dispatch.placement import nearest
from service.jobs.dispatch.slot import EngineSlot
from service.jobs.job import Job
from service.jobs.queue.forecast import QueueForecast
from service.jobs.queue.queue import JobQueue, Limit
from service.jobs.queue.reservations import Reservations
from service.models.served.catalog import DEFAULT, ModelCatalog
from service.telemetry.metrics import Metrics

CLUSTER_RETRY_SECONDS: Final = 30.0
"""The driver of a cluster looks for it at least so often."""


class Admission:
    """Refuses jobs that no slot could work on, before they cost anything."""

    def __init__(
        self,
        slots: Sequence[EngineSlot],
        queue: JobQueue,
        forecast: QueueForecast,
        models: ModelCatalog,
        failure: Callable[[str], str],
        *,
        metrics: Metrics,
        config: Config,
    ) -> None:
        """Set up; ``failure`` returns why no engine can load a model, and nothing if one may."""
        self.draining = False
        """Whether the service is about to end and takes nothing new."""
        self.unreachable: Callable[[], float] = lambda: 0.0
        """Returns for how many seconds no engine could be found, once that is too long."""
        self._slots = slots
        self._queue = queue
        self._forecast = forecast
        self._metrics = metrics
        self._config = config
        self._models, self._failure = models, failure
        self._reservations = Reservations(queue, lambda: forecast.waiting)

    @property
    def ready(self) -> bool:
        """Whether new work is taken and can be worked on now."""
        try:
            self.check_ready()
        except errors.ServiceError:
            return False
        return True

    def check_ready(self) -> None:
        """Raise what keeps new work from being taken, or every slot from working on it at once.

        Raises:
            ShuttingDown: no new work is taken any more.
            ClusterUnreachable: no engine works, and none could be found for a while.
            EngineUnavailable: the engine keeps ending, or has been silent for too long.
            ModelUnavailable: the model is not loaded, or not yet.
            OutOfMemory: not even the smallest image fits.

        """
        if self.draining:
            raise errors.ShuttingDown("Send requests to another instance.")
        if lost := self.cluster_lost():
            raise lost
        problems = {slot: self._distrust(slot) or slot.problem() for slot in self._slots}
        if None not in problems.values() and (problem := problems[nearest(self._slots)]):
            raise problem

    def admit(self, job: Job, make_room: Callable[[], None], *, promised: bool = False) -> None:
        """Let ``job`` into the queue or raise why not; ``make_room`` starts what can be started.

        A job that is ``promised`` outlives its client, so it may wait for engines.

        Raises:
            ShuttingDown: no new work is taken any more.
            ModelUnavailable: the model could not be loaded.
            ClusterUnreachable: no engine works, and none could be found for a while.
            EngineUnavailable: the engine keeps ending; with the seconds until the next try.
            OutOfMemory: its images do not fit, not even one at a time.
            QueueFull: with the seconds after which there is a place.

        """
        if self.draining:
            raise self._refused(
                job, "draining", errors.ShuttingDown("Send the request to another instance.")
            )
        self._demand_model(job)
        if not promised and (lost := self.cluster_lost()):
            raise self._refused(job, "cluster_unreachable", lost)
        if not any(self._takes(slot, job) for slot in self._slots):
            self._check_slots(job)
        if self._queue.limit(job.owner) is not None:
            make_room()  # The dispatcher's task may not have had its turn yet.
        now = time.monotonic()
        limit = self._reservations.limit(job, lambda: self._forecast.starts(job.owner), now)
        if limit is not None:
            raise self._refused(job, "queue_full", self._no_place(job, limit, now))
        self._reservations.enter(job, now)
        self._forecast.accepted(job, now)

    def cluster_lost(self) -> errors.ClusterUnreachable | None:
        """Return the error of requests that no engine can be found for; None while one may be."""
        if any(slot.ready for slot in self._slots) or not (seconds := self.unreachable()):
            return None
        return errors.ClusterUnreachable(
            f"No engine is ready, and the cluster could not be reached for {seconds:.0f} s; "
            f"retry in {CLUSTER_RETRY_SECONDS:.0f} s.",
            retry_after=CLUSTER_RETRY_SECONDS,
        )

    def _takes(self, slot: EngineSlot, job: Job) -> bool:
        closed = slot.closed or self._distrust(slot) is not None
        return not closed and slot.lack(job.request) is None

    def _check_slots(self, job: Job) -> None:
        """Raise what keeps every slot from working on ``job``."""
        live = [slot for slot in self._slots if not slot.closed]
        if not live:
            failure = next(slot.engine.failure for slot in self._slots if slot.failed)
            raise self._refused(job, "model_unavailable", errors.ModelUnavailable(failure))
        distrust = [error for slot in live if (error := self._distrust(slot)) is not None]
        if len(distrust) == len(live):
            soonest = min(distrust, key=lambda error: error.retry_after or 0)
            raise self._refused(job, "circuit_open", soonest)
        if (lacking := _lack(job, live)) is not None:
            raise self._refused(job, "memory", lacking)

    def problem(self, key: str) -> str:
        """Return why a model cannot be used; empty if it can, as far as is known."""
        # The default model is left to the engine, which loads it at every start.
        return self._failure(key) or (self._models[key].problem if key != DEFAULT else "")

    def _demand_model(self, job: Job) -> None:
        if problem := self.problem(job.model):
            name = self._models[job.model].id
            error = errors.ModelUnavailable(f"The model {name} cannot be used: {problem}")
            raise self._refused(job, "model_unavailable", error)

    def _distrust(self, slot: EngineSlot) -> errors.EngineUnavailable | None:
        """Let one job through an open circuit when the engine is back and has nothing to do.

        Without it nothing would ever close the circuit of a service whose queue is empty.
        """
        state = slot.circuit_state
        if state is CircuitState.CLOSED:
            return None
        if state is CircuitState.HALF_OPEN and not slot.jobs and self._queue.empty():
            return None
        # Jobs accepted before go first, one at a time: the first one that ends well is awaited.
        probe = [*slot.jobs.values(), *self._queue.waiting][:1]
        seconds = math.ceil(
            max(1.0, slot.circuit.wait_seconds + slot.delay + slot.estimate.seconds(probe))
        )
        return errors.EngineUnavailable(
            f"The engine ended {slot.circuit.crashes} times in a row and runs the waiting "
            f"requests one at a time; retry in {seconds} s.",
            retry_after=seconds,
        )

    def _no_place(self, job: Job, limit: Limit, now: float) -> errors.QueueFull:
        seconds = self._reservations.retry_after(job, self._forecast.starts(job.owner), now)
        free = self._queue.free
        reason = {
            Limit.QUEUE: f"{self._config.queue_size} requests are waiting",
            Limit.KEY: f"{self._queue.held(job.owner)} requests of your key are waiting, and the "
            f"{free} free places are kept for other keys",
            Limit.PROMISED: f"The {free} free places are promised to requests refused before",
        }[limit]
        return errors.QueueFull(f"{reason}; retry in {seconds} s.", retry_after=seconds)

    def _refused(self, job: Job, reason: str, error: errors.ServiceError) -> errors.ServiceError:
        self._metrics.refused.labels(job.api, reason).inc()
        return error


def _lack(job: Job, slots: Sequence[EngineSlot]) -> errors.OutOfMemory | None:
    """Return the error of a job that fits no slot, from the largest; None if it fits one."""
    lacking = [(slot.most_pixels, error) for slot in slots if (error := slot.lack(job.request))]
    if len(lacking) < len(slots):
        return None
    return max(lacking, key=lambda pair: pair[0])[1]
