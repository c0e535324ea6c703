"""One engine, the batch that it runs, and how far it is trusted with more."""

import math
from collections.abc import Mapping
from dataclasses import replace

import structlog

from service.config.limits import limits_of
from service.config.table import Config
from service.core.capacity import Capacity
from service.core.events import JobFinished, Stepped
from service.core.limits import RequestLimits
from service.core.model import ModelInfo
from service.core.spec import GenerationSpec
from service.core.work import image_places, places
from service.engine.base import Engine, EngineState
from service.errors import EngineUnavailable, ModelUnavailable, OutOfMemory, ServiceError
from service.jobs import record
from service.jobs.dispatch.bypass import may_bypass
from service.jobs.dispatch.circuit import Circuit, CircuitState
from service.jobs.dispatch.memory_check import lack
from service.jobs.dispatch.residency import Residency
from service.jobs.job import Job
from service.jobs.queue.estimate import LOAD_SECONDS, Estimate
from service.models.defaults import adapters
from service.models.served.catalog import DEFAULT, ONE, ModelCatalog, Served
from service.telemetry.engine import EngineMetrics

log = structlog.get_logger(__name__)


class EngineSlot:
    """An engine and its batch, which is counted in images.

    A job that may be the one that ends engines runs alone, and so does every job while the
    circuit is open.
    """

    def __init__(
        self, engine: Engine, metrics: EngineMetrics, config: Config, models: ModelCatalog = ONE
    ) -> None:
        self.engine = engine
        engine.name = metrics.name
        self.metrics = metrics
        self.number = int(metrics.name)
        self.jobs: dict[str, Job] = {}
        """In work, by id, the oldest first."""
        self.leaving: dict[str, Job] = {}
        """Cancelled jobs whose cost the engine has not reported yet."""
        self.shown: set[str] = set()
        """Ids of the jobs whose previews the engine was asked for."""
        self.circuit = Circuit(max_attempts=config.max_attempts, engine=metrics.name)
        self.estimate = Estimate()
        self.residency = Residency(models, max_attempts=config.max_attempts)
        self.capacities: dict[str, Capacity] = {}
        """By model, what memory images may take, as the engine reported last."""
        self.idle_since = -math.inf
        """When the engine was last seen with a job."""
        self._limits: dict[str, int] = {}
        """By model, the largest batch that gains anything; nothing for those not measured."""
        self._config = config
        self._models = models
        self._bypassing = ""
        """Id of the job that joined a full batch last."""
        self.retiring = False
        """Whether its engine leaves when the jobs in it are over."""
        metrics.batch_limit.set(self.batch_limit)
        metrics.heartbeat_age.set_function(lambda: engine.silence)

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self.engine.state is EngineState.READY

    @property
    def name(self) -> str:
        """Its number, in log lines and in the label ``engine``."""
        return self.metrics.name

    @property
    def failed(self) -> bool:
        """Whether the model cannot be loaded."""
        return self.engine.state is EngineState.FAILED

    @property
    def closed(self) -> bool:
        """Whether no job will start here any more."""
        return self.retiring or self.failed

    def info(self, key: str) -> ModelInfo | None:
        """Return what is known of a model that was loaded here once."""
        return self.engine.model if key == DEFAULT else self.residency.infos.get(key)

    def limits(self, key: str = DEFAULT) -> RequestLimits:
        """Return the limits and defaults of requests to a model, by the settings and the model."""
        model = self.info(key) or self._models[key].known
        return limits_of(
            self._config, model.sizes, model.recipe, model.max_clip_skip, model.schedules
        )

    def state_of(self, key: str, model: Served) -> str:
        """Return where a model is that can be used, in a word of ``GET /models``."""
        if key in self.residency.loaded:
            return "loaded"
        if key == self.residency.wanted or (key == DEFAULT and not self.ready):
            return "loading"
        if key in self.residency.parked:
            return "parked"
        # One that had to be fetched is here once it was loaded.
        return "on_disk" if model.here or key in self.residency.infos else "on_hub"

    @property
    def delay(self) -> float:
        """Seconds until the engine can begin: 0, or the time that loading took before."""
        if self.ready:
            return 0.0
        return self.engine.model.load_seconds if self.engine.model else LOAD_SECONDS

    @property
    def circuit_state(self) -> CircuitState:
        """Whether work flows to the engine."""
        return self.circuit.state(ready=self.ready)

    @property
    def capacity(self) -> Capacity | None:
        """What memory images of the default model may take."""
        return self.capacities.get(DEFAULT)

    @property
    def batch_limit(self) -> int:
        """Images in the engine at most; calibration may lower it."""
        return max(map(self._limit, self.residency.loaded or {DEFAULT}))

    def _limit(self, key: str) -> int:
        most = self._config.max_concurrent_requests
        return min(self._limits.get(key, most), most)

    def holds(self, job: Job) -> bool:
        """Whether the model of a job is in memory."""
        return self.ready and job.model in self.residency.loaded

    def switch_seconds(self, job: Job) -> float:
        """Return the seconds that a job's model takes to load; 0 where it is loaded."""
        loaded = not self.ready or job.model in self.residency.loaded
        return 0.0 if loaded else self.residency.load_seconds(job.model)

    @property
    def has_room(self) -> bool:
        """Whether another job may join now."""
        return self._open and self._images + 1 <= self.batch_limit

    def has_room_for(self, job: Job) -> bool:
        """Whether this job may join now: its model is there, and gains by so large a batch."""
        return self.holds(job) and self.has_room and self._images < self._limit(job.model)

    def runs_like(self, job: Job) -> bool:
        """Whether an image of the batch can share its steps with those of a job."""
        return any(alike(each, job) for each in self.jobs.values())

    def takes_bypass(self, job: Job) -> bool:
        """Return whether a short job may join although the batch is full; see ``bypass``."""
        return (
            self._bypassing not in self.jobs
            and self._images + 1 > self.batch_limit
            and self._open
            and not self.last_chance(job)
            and may_bypass(job, self.jobs.values())
        )

    def put_bypass(self, job: Job) -> None:
        """Note that ``job`` joins a full batch: until it leaves no other does."""
        self._bypassing = job.id

    @property
    def _images(self) -> float:
        return sum(places(job.request) for job in self.jobs.values())

    @property
    def _open(self) -> bool:
        """Whether nothing but the number of images keeps jobs from joining."""
        jobs = self.jobs.values()
        return (
            self.ready
            and not self.retiring
            and not self.residency.holding
            and not (jobs and self.circuit.open)
            and not any(1 < job.attempts >= self._config.max_attempts for job in jobs)
        )

    def last_chance(self, job: Job) -> bool:
        """Return whether a job that lost engines before may be started once more only.

        It then runs alone: whichever job of a batch it is that kills the engine, the
        others are not failed with it.
        """
        return 0 < job.attempts >= self._config.max_attempts - 1

    def lack(self, request: GenerationSpec) -> OutOfMemory | None:
        """Return the error of a request whose images do not fit here; None if they do."""
        key = self._models.key(request.model)
        if (capacity := self.capacities.get(key)) is None:
            return None
        return lack(request, capacity, smallest=self.limits(key).min_size)

    def fits(self, request: GenerationSpec) -> bool:
        """Whether an image of a request fits here, as far as is known."""
        capacity = self.capacities.get(self._models.key(request.model))
        return capacity is None or capacity.fits(request.largest_pixels, image_places(request))

    @property
    def most_pixels(self) -> float:
        """Pixels of the largest image that fits here."""
        return math.inf if self.capacity is None else self.capacity.most_pixels

    def problem(self) -> ServiceError | None:
        """Return what keeps the engine from working at once; None when nothing does."""
        if not self.ready:
            return ModelUnavailable(f"The engine is {self.engine.state.value}.")
        if self.engine.late:
            return EngineUnavailable(
                f"The engine has work and has not responded for {self.engine.silence:.0f} s."
            )
        side = self.limits().min_size
        return self.lack(GenerationSpec(prompt="", width=side, height=side))

    def calibrated(self, batch: int, key: str = DEFAULT) -> None:
        """Take no more images at a time than gain anything with a model."""
        self._limits[key] = batch

    def find(self, job_id: str) -> Job | None:
        """Return a job that the engine knows, also one that is leaving."""
        return self.jobs.get(job_id) or self.leaving.get(job_id)

    def drew(self, job: Job, result: JobFinished, model_hash: str = "") -> None:
        """Give a job its images, and what is to be said of the model that drew them."""
        if (model := self.info(job.model)) is None:
            job.draw(result, "")
            return
        steps = self._config.max_steps
        facts = adapters.facts(job.request, model.facts(job.request), steps)
        job.draw(result, model.version, facts | {"model_hash": model_hash})

    def is_late(self, job_id: str, epoch: int) -> bool:
        """Return whether it is from an earlier attempt at a job that the engine has again."""
        job = self.find(job_id)
        late = job is not None and epoch < job.epoch
        if late:
            log.warning("late_event_dropped", job_id=job_id, epoch=epoch, engine=self.metrics.name)
        return late

    def stepped(self, event: Stepped) -> list[Job]:
        """Learn from a step, and return the jobs that it moved on."""
        moved = []
        for job_id, epoch in event.epochs.items():
            job = self.find(job_id)
            if job is None or self.is_late(job_id, epoch):
                continue
            job.gpu_seconds += event.shares[job_id]
            if job_id in self.jobs:
                job.steps_done = event.progress[job_id]
                moved.append(job)
        moved_pixels = event.pixels * event.steps
        self.estimate.observe(pixels=moved_pixels, seconds=event.seconds, model=event.model_id)
        return moved

    def show(self) -> None:
        """Show how many jobs are in work, and in which state the engine is."""
        self.metrics.jobs_running.set(len(self.jobs))
        if not self.jobs:
            self.metrics.batch_live.set(0)
        record.engine_state(self.metrics, self.engine.state, circuit_open=self.circuit.open)

    def start(self, job: Job) -> None:
        """Hand a job to the engine; one that was interrupted in an earlier attempt, with that."""
        request = replace(job.request, model=job.model)
        self.engine.generate(job.id, request, job.epoch, job.inputs)
        if job.interrupted:
            self.engine.interrupt(job.id)

    def adopt(self, job: Job) -> None:
        """Take up a job that the engine went on with while nobody heard of it."""
        self.jobs[job.id] = job
        self.engine.adopt(job.id, replace(job.request, model=job.model), job.epoch)

    def interrupt(self, job: Job) -> bool:
        """End a running job early, with its unfinished images; return whether it was in the batch.

        It stays in the batch until the engine reports them.
        """
        if job.id not in self.jobs:
            return False
        if not job.interrupted:
            job.interrupted = True
            log.info("job_interrupted", job_id=job.id, steps_done=job.steps_done)
            self.engine.interrupt(job.id)
        return True

    def preview(self, job_id: str, *, wanted: bool) -> None:
        """Begin or end to show a job's images in the making."""
        (self.shown.add if wanted else self.shown.discard)(job_id)
        self.engine.preview(job_id, wanted=wanted)

    def cancel(self, job: Job) -> bool:
        """Take a running job out of the batch; return whether it was in it."""
        if self.jobs.pop(job.id, None) is None:
            return False
        self.leaving[job.id] = job
        self.engine.cancel(job.id)
        return True

    def miss(self, there: Mapping[str, int]) -> list[Job]:
        """Forget the jobs that the engine does not have any more, and return those in work.

        ``there`` are the epochs of those that it has, by id.
        """
        missing = [job for job in self.jobs.values() if there.get(job.id) != job.epoch]
        for job in missing:
            del self.jobs[job.id]
        for job in [job for job in self.leaving.values() if job.id not in there]:
            del self.leaving[job.id]
        self.metrics.gpu_seconds("lost").inc(sum(job.gpu_seconds for job in missing))
        return missing

    def lose(self) -> tuple[list[Job], list[Job]]:
        """Forget what a dead engine had: return the jobs in work, and those that were leaving."""
        lost, left = list(self.jobs.values()), list(self.leaving.values())
        self.jobs.clear()
        self.leaving.clear()
        self.shown.clear()
        self.capacities.clear()
        return lost, left


def alike(one: Job, other: Job) -> bool:
    """Return whether images of two jobs are of the same model and size."""
    return one.model == other.model and (
        (one.request.width, one.request.height) == (other.request.width, other.request.height)
    )
