"""The jobs in the engine, and whether another may join them."""

import asyncio

from service.config import Config
from service.engine.base import Engine, EngineState
from service.jobs.beside import slips_in
from service.jobs.circuit import Circuit
from service.jobs.job import Job


class Batch:
    """What one engine works on; ``room`` is set while another job may join.

    Counted in pictures. A job that may be the one that ends engines runs alone, and so does
    every job while the circuit is open.
    """

    def __init__(self, engine: Engine, circuit: Circuit, config: Config) -> None:
        self.jobs: dict[str, Job] = {}
        """In work, by id, the oldest first."""
        self.leaving: dict[str, Job] = {}
        """Jobs that were cancelled in the engine, which has not said yet what they cost."""
        self.room = asyncio.Event()
        self._engine = engine
        self._circuit = circuit
        self.most = config.max_concurrent_requests
        """Pictures; lowered to what calibration found, where that is less."""
        self._max_attempts = config.max_attempts
        self._beside = ""
        """Id of the job that joined beside a full batch last."""

    @property
    def has_room(self) -> bool:
        """Whether another job may join now."""
        return self._open and self._pictures < self.most

    def takes_beside(self, job: Job) -> bool:
        """Return whether a short job may join although the batch is full; see ``beside``."""
        return (
            self._open
            and self._pictures >= self.most
            and self._beside not in self.jobs
            and not self.last_chance(job)
            and slips_in(job, self.jobs.values())
        )

    def put_beside(self, job: Job) -> None:
        """Note that ``job`` joins beside a full batch: until it leaves no other does."""
        self._beside = job.id

    @property
    def _pictures(self) -> int:
        return sum(job.request.num_images for job in self.jobs.values())

    @property
    def _open(self) -> bool:
        """Whether nothing but the number of pictures keeps jobs from joining."""
        jobs = self.jobs.values()
        return (
            self._engine.state is EngineState.READY
            and not (jobs and self._circuit.open)
            and not any(1 < job.attempts >= self._max_attempts for job in jobs)
        )

    def update(self) -> None:
        """Let those who wait for room know how it is."""
        if self.has_room:
            self.room.set()
        else:
            self.room.clear()

    def last_chance(self, job: Job) -> bool:
        """Return whether a job that lost engines before may be started once more only.

        It then runs alone: whichever job of a batch it is that kills the engine, the
        others are not failed with it.
        """
        return 0 < job.attempts >= self._max_attempts - 1

    def find(self, job_id: str) -> Job | None:
        """Return a job that the engine knows, one that is leaving too."""
        return self.jobs.get(job_id) or self.leaving.get(job_id)

    def lose(self) -> tuple[list[Job], list[Job]]:
        """Forget what a dead engine had: return the jobs in work, and those that were leaving."""
        lost, left = list(self.jobs.values()), list(self.leaving.values())
        self.jobs.clear()
        self.leaving.clear()
        return lost, left
