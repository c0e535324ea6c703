"""The jobs on the disk: what a restart knows of the time before it."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from service.errors import JobExpired, NotFound, ServiceError, ValidationFailed
from service.jobs.clock import SteadyClock
from service.jobs.database import Database
from service.jobs.job import FINAL, JobState
from service.jobs.schema import UNFINISHED, transaction
from service.jobs.statements import EXPIRE, FINISH, INSERT, RELEASE, SELECT, USED_BY_JOB
from service.jobs.stored import COLUMNS, Delivery, Page, StoredJob, from_row, to_row
from service.telemetry.metrics import Metrics

BUSY_SECONDS: Final = 5.0
"""How long a call waits, its turn included, while another program holds the file."""


class JobStore:
    """One row per accepted job in an SQLite file, which one service at a time owns.

    A method returns when its change is on the disk (WAL with ``synchronous=FULL``), or
    raises and has changed nothing. All of SQLite's work is done on one thread of the
    store's own, in the order of the calls. A call whose task is cancelled may still be
    carried out: call ``add`` and ``finish`` from tasks that outlive their clients.

    Every method may raise StoreUnavailable: the file is locked by another program, the
    disk is full, read-only or failing, or the file is damaged or was replaced.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_seconds: float = BUSY_SECONDS,
        clock: Callable[[], float] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._clock = clock or SteadyClock()
        self._database = Database(path, busy_seconds=busy_seconds, metrics=metrics)
        self.run = self._database.run
        """For what is kept beside the jobs."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the file, made if it is not there, and claim it for this process.

        Raises:
            StoreError: it is damaged, of a newer version, not ours, or in use, with the cure.

        """
        await self._database.open()

    async def close(self) -> None:
        """Finish what was asked for, and close the file."""
        await self._database.close()

    async def add(self, job: StoredJob) -> StoredJob:
        """Keep an accepted job, and return the one that now stands for it.

        That is ``job`` itself unless its key has used the same idempotency key before:
        then nothing is kept and the earlier job comes back, whose digest tells whether
        this is the same request again.
        """

        def work(connection: sqlite3.Connection) -> StoredJob:
            with transaction(connection):
                if connection.execute(INSERT, to_row(job)).rowcount:
                    return job
                earlier = connection.execute(
                    f"{SELECT} WHERE key = ? AND idempotency_key = ?",
                    (job.key, job.idempotency_key),
                )
                return from_row(earlier.fetchone())

        return await self.run(work, changes=True)

    async def find(self, key: str, idempotency_key: str) -> StoredJob | None:
        """Return the job of the key that an idempotency key stands for; None where it is free."""
        rows = await self._rows(
            f"{SELECT} WHERE key = ? AND idempotency_key = ?", (key, idempotency_key)
        )
        return from_row(rows[0]) if rows else None

    async def begin(self, job_id: str) -> bool:
        """Count an attempt; return whether there was an unfinished job to begin."""
        return await self._change(
            "state = 'running', attempts = attempts + 1, steps_done = 0, started_at = ?",
            (self._clock(),),
            job_id,
        )

    async def requeue(self, job_id: str) -> bool:
        """Let an unfinished job wait again, its attempts kept."""
        return await self._change("state = 'queued', steps_done = 0, started_at = NULL", (), job_id)

    async def hand_back(self, job_id: str) -> bool:
        """Let a job wait again that was stopped and not lost: its attempt does not count."""
        return await self._change(
            "attempts = attempts - (state = 'running'), state = 'queued', steps_done = 0,"
            " started_at = NULL",
            (),
            job_id,
        )

    async def finish(
        self,
        job_id: str,
        state: JobState,
        *,
        error: ServiceError | None = None,
        steps_done: int = 0,
        metadata: Mapping[str, Any] | None = None,
        model_version: str = "",
        paid: int = 0,
        forget_key: bool = False,
    ) -> bool:
        """End a job; return whether this call did it, which is so for one call at most.

        ``paid`` pictures count for the quota of its key. With ``forget_key`` its idempotency
        key stands for nothing any more.

        Raises:
            ValueError: ``state`` is no end.

        """
        if state not in FINAL:
            raise ValueError(f"A job cannot end as {state}.")
        text = None if metadata is None else json.dumps(metadata)
        values = (
            state.value,
            self._clock(),
            error.code if error else "",
            error.detail if error else "",
            *(steps_done, text, model_version, forget_key, forget_key, job_id),
        )

        def work(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                ended = connection.execute(FINISH, values).rowcount == 1
                if ended and paid:
                    connection.execute(USED_BY_JOB, (paid, job_id))
                return ended

        return await self.run(work, changes=True)

    async def release(self, job_id: str) -> bool:
        """Let the idempotency key of a job that is over go, for another job to take."""
        return bool(await self._execute(RELEASE, (job_id,)))

    async def deliver(self, job_id: str, delivery: Delivery) -> bool:
        """Keep how far the webhook of a job got."""
        values = (delivery.state.value, delivery.attempts, delivery.status, delivery.detail)
        statement = (
            "UPDATE jobs SET webhook_state = ?, webhook_attempts = ?, webhook_status = ?,"
            " webhook_detail = ? WHERE id = ? AND webhook IS NOT NULL"
        )
        return bool(await self._execute(statement, (*values, job_id)))

    async def get(self, job_id: str, key: str) -> StoredJob:
        """Return a job of the key.

        Raises:
            NotFound: the key has no such job; another's looks the same as none.
            JobExpired: it had one.

        """
        rows = await self._rows(
            f"SELECT expired_at, {', '.join(COLUMNS)} FROM jobs WHERE id = ? AND key = ?",  # noqa: S608
            (job_id, key),
        )
        if not rows:
            raise NotFound("There is no job with this id.")
        if rows[0][0] is not None:
            raise JobExpired("The job is over, and its pictures were removed after their time.")
        return from_row(rows[0][1:])

    async def page(
        self, key: str, *, state: JobState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page:
        """Return jobs of the key, the newest first, those after ``cursor``.

        A cursor stays right whatever is added or removed meanwhile.

        Raises:
            ValidationFailed: the cursor is not one of this key's.

        """
        where, values = "key = ? AND expired_at IS NULL", [key]
        if state is not None:
            where, values = f"{where} AND state = ?", [*values, state.value]
        if cursor is not None:
            # The last job that was shown; its number would tell how many jobs others have.
            place = await self._rows("SELECT seq FROM jobs WHERE id = ? AND key = ?", (cursor, key))
            if not place:
                raise ValidationFailed({"cursor": ["Is unknown; start with the first page."]})
            where, values = f"{where} AND seq < ?", [*values, place[0][0]]
        rows = await self._rows(
            f"{SELECT} WHERE {where} ORDER BY seq DESC LIMIT ?", (*values, limit + 1)
        )
        jobs = tuple(from_row(row) for row in rows[:limit])
        return Page(jobs=jobs, cursor=jobs[-1].id if len(rows) > limit and jobs else None)

    async def unfinished(self) -> list[StoredJob]:
        """Return what was accepted and is not over, in the order of acceptance.

        A job that is not ``complete`` must be failed, not run.
        """
        rows = await self._rows(f"{SELECT} WHERE {UNFINISHED} ORDER BY seq", ())
        return [from_row(row) for row in rows]

    async def undelivered(self) -> list[StoredJob]:
        """Return the finished jobs whose webhook is still to be told."""
        rows = await self._rows(
            f"{SELECT} WHERE webhook_state = 'pending' AND NOT {UNFINISHED} ORDER BY seq", ()
        )
        return [from_row(row) for row in rows]

    async def with_pictures(self) -> frozenset[str]:
        """Return the ids of all jobs that may have pictures on the disk, unfinished ones too."""
        rows = await self._rows(
            f"SELECT id FROM jobs WHERE expired_at IS NULL AND ({UNFINISHED}"  # noqa: S608
            " OR state = 'succeeded')",
            (),
        )
        return frozenset(row[0] for row in rows)

    async def expire(
        self, *, max_age_seconds: float | None = None, ids: Iterable[str] = ()
    ) -> list[str]:
        """Forget finished jobs but for their id, so that asking for them is 410 and not 404.

        Those that ended longer ago than ``max_age_seconds``, and those of ``ids``, whose
        pictures had to make room. Returns the ids of those it met.
        """
        now, wanted = self._clock(), list(ids)

        def work(connection: sqlite3.Connection) -> list[str]:
            with transaction(connection):
                if max_age_seconds is not None:
                    old = connection.execute(
                        "SELECT id FROM jobs WHERE expired_at IS NULL AND finished_at < ?",
                        (now - max_age_seconds,),
                    )
                    wanted.extend(row[0] for row in old.fetchall())
                return [
                    job_id
                    for job_id in dict.fromkeys(wanted)
                    if connection.execute(EXPIRE, {"now": now, "id": job_id}).rowcount
                ]

        return await self.run(work, changes=True)

    async def purge(self, max_age_seconds: float) -> int:
        """Forget even the ids of jobs that expired longer ago; return how many."""
        before = self._clock() - max_age_seconds
        return await self._execute("DELETE FROM jobs WHERE expired_at < ?", (before,))

    async def counts(self, key: str | None = None) -> Mapping[JobState, int]:
        """Return how many jobs are in each state, of one key or of all, without the expired."""
        where, values = ("", ()) if key is None else (" AND key = ?", (key,))
        rows = await self._rows(
            f"SELECT state, count(*) FROM jobs WHERE expired_at IS NULL{where} GROUP BY state",  # noqa: S608
            values,
        )
        found = dict(rows)
        return {state: found.get(state.value, 0) for state in JobState}

    async def _change(self, change: str, values: Sequence[object], job_id: str) -> bool:
        """Change a job that is not over, and return whether there was one.

        The state is asked for in the statement that changes it: of two ends one is told.
        """
        statement = f"UPDATE jobs SET {change} WHERE id = ? AND {UNFINISHED}"  # noqa: S608
        return await self._execute(statement, (*values, job_id)) == 1

    async def _execute(self, statement: str, values: Sequence[object]) -> int:
        """Change rows, and return how many."""
        return await self.run(
            lambda connection: connection.execute(statement, values).rowcount, changes=True
        )

    async def _rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return await self.run(lambda connection: connection.execute(query, values).fetchall())
