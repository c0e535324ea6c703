"""The jobs on the disk: what a restart knows of the time before it."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from service.core.outcome import Delivery
from service.jobs.job import JobState
from service.jobs.store import quarantine, statements
from service.jobs.store.base import JobEnd, JobStore, StoreFigures, Used, missing, unknown_cursor
from service.jobs.store.clock import SteadyClock
from service.jobs.store.database import Database
from service.jobs.store.schema import UNFINISHED, overwriting, transaction
from service.jobs.store.stored import Page, StoredJob, to_row
from service.telemetry.metrics import Metrics

BUSY_SECONDS: Final = 5.0
"""How long a call waits, its turn included, while another program holds the file."""


class SqliteStore(JobStore):
    """Job store in an SQLite file, which one service at a time owns.

    A method returns when its change is on the disk (WAL with ``synchronous=FULL``). All of
    SQLite's work is done on one thread of the store's own, in the order of the calls.

    StoreUnavailable means: the file is locked by another program, the disk is full,
    read-only or failing, or the file is damaged or was replaced.
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
        self._run = self._database.run

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def check(self) -> None:
        await self._run(lambda _connection: None)

    async def add(self, job: StoredJob) -> StoredJob:
        def work(connection: sqlite3.Connection) -> StoredJob:
            with transaction(connection):
                if connection.execute(statements.INSERT, to_row(job)).rowcount:
                    return job
            values = (job.owner, job.idempotency_key)
            earlier = quarantine.jobs(
                connection, statements.BY_IDEMPOTENCY_KEY, values, self._clock()
            )
            return earlier[0] if earlier else work(connection)  # The earlier one was damaged.

        return await self._run(work, changes=True)

    async def find(self, owner: str, idempotency_key: str) -> StoredJob | None:
        found = await self._jobs(statements.BY_IDEMPOTENCY_KEY, (owner, idempotency_key))
        return found[0] if found else None

    async def begin(self, job_id: str, epoch: int) -> bool:
        values = {"id": job_id, "epoch": epoch, "now": self._clock()}
        return bool(await self._execute(statements.BEGIN, values))

    async def resume(self, job_id: str, epoch: int) -> bool:
        values = {"id": job_id, "epoch": epoch, "now": self._clock()}
        return bool(await self._execute(statements.RESUME, values))

    async def requeue(self, job_id: str, epoch: int) -> bool:
        return bool(await self._execute(statements.REQUEUE, {"id": job_id, "epoch": epoch}))

    async def hand_back(self, job_id: str, epoch: int) -> bool:
        return bool(await self._execute(statements.HAND_BACK, {"id": job_id, "epoch": epoch}))

    async def finish(self, job_id: str, end: JobEnd) -> bool:
        values = vars(end) | {
            "id": job_id,
            "now": self._clock(),
            "state": end.state.value,
            "error_code": end.error.code if end.error else "",
            "error_detail": end.error.detail if end.error else "",
            "metadata": None if end.metadata is None else json.dumps(end.metadata),
        }

        def work(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                ended = connection.execute(statements.FINISH, values).rowcount == 1
                if ended and end.paid:
                    connection.execute(statements.USED_BY_JOB, (end.paid, job_id))
                return ended

        return await self._run(work, changes=True)

    async def release(self, job_id: str) -> bool:
        return bool(await self._execute(statements.RELEASE, (job_id,)))

    async def deliver(self, job_id: str, delivery: Delivery) -> bool:
        values = (delivery.state.value, delivery.attempts, delivery.status, delivery.detail)
        return bool(await self._execute(statements.DELIVER, (*values, job_id)))

    async def get(self, job_id: str, owner: str) -> StoredJob:
        where = "WHERE id = ? AND key = ?"
        found = await self._jobs(f"{where} AND expired_at IS NULL", (job_id, owner))
        if found:
            return found[0]
        kept = await self._rows(f"SELECT 1 FROM jobs {where}", (job_id, owner))  # noqa: S608
        raise missing(expired=bool(kept))

    async def page(
        self, owner: str, *, state: JobState | None = None, cursor: str | None = None, limit: int
    ) -> Page:
        where, values = "key = ? AND expired_at IS NULL", [owner]
        if state is not None:
            where, values = f"{where} AND state = ?", [*values, state.value]
        if cursor is not None:
            # The last job that was shown; its number would tell how many jobs others have.
            place = await self._rows(statements.PLACE, (cursor, owner))
            if not place:
                raise unknown_cursor()
            where, values = f"{where} AND seq < ?", [*values, place[0][0]]
        found = await self._jobs(f"WHERE {where} ORDER BY seq DESC LIMIT ?", (*values, limit + 1))
        jobs = tuple(found[:limit])
        return Page(jobs=jobs, cursor=jobs[-1].id if len(found) > limit and jobs else None)

    async def unfinished(self) -> list[StoredJob]:
        return await self._jobs(f"WHERE {UNFINISHED} ORDER BY seq", ())

    async def undelivered(self) -> list[StoredJob]:
        return await self._jobs(f"{statements.UNDELIVERED} ORDER BY seq", ())

    async def set_aside(self) -> int:
        def work(connection: sqlite3.Connection) -> int:
            quarantine.check(connection, self._clock())
            found: int = connection.execute(statements.SET_ASIDE).fetchone()[0]
            return found

        return await self._run(work, changes=True)

    async def with_images(self) -> frozenset[str]:
        return frozenset(row[0] for row in await self._rows(statements.WITH_IMAGES, ()))

    async def expire(
        self, *, max_age_seconds: float | None = None, ids: Iterable[str] = ()
    ) -> list[str]:
        now, wanted = self._clock(), list(ids)

        def work(connection: sqlite3.Connection) -> list[str]:
            with transaction(connection):
                if max_age_seconds is not None:
                    old = connection.execute(statements.OLDER, (now - max_age_seconds,))
                    wanted.extend(row[0] for row in old.fetchall())
                return [
                    job_id
                    for job_id in dict.fromkeys(wanted)
                    if connection.execute(statements.EXPIRE, {"now": now, "id": job_id}).rowcount
                ]

        return await self._run(work, changes=True)

    async def expire_without_images(self, *, max_age_seconds: float, most: int) -> int:
        now = self._clock()
        values = {"now": now, "before": now - max_age_seconds, "most": most}
        return await self._execute(statements.EXPIRE_WITHOUT_IMAGES, values)

    async def purge(self, max_age_seconds: float, *, most: int) -> int:
        return await self._execute(statements.PURGE, (self._clock() - max_age_seconds, most))

    async def remove(self, owner: str, *, unfinished: bool = False) -> list[str]:
        values = {"owner": owner, "unfinished": unfinished}

        def work(connection: sqlite3.Connection) -> list[str]:
            with overwriting(connection), transaction(connection):
                found = connection.execute(statements.OWNED, values).fetchall()
                connection.execute(statements.REMOVE, values)
                quarantine.remove(connection, owner)
            return [row[0] for row in found]

        return await self._run(work, changes=True)

    async def counts(self, owner: str | None = None) -> Mapping[JobState, int]:
        where, values = ("", ()) if owner is None else (" AND key = ?", (owner,))
        rows = await self._rows(
            f"SELECT state, count(*) FROM jobs WHERE expired_at IS NULL{where} GROUP BY state",  # noqa: S608
            values,
        )
        found = dict(rows)
        return {state: found.get(state.value, 0) for state in JobState}

    async def figures(self) -> StoreFigures:
        ((count, since, aside),) = await self._rows(statements.FIGURES, ())
        # A row that somebody else wrote may hold anything; it is set aside when it is read.
        since = since if isinstance(since, int | float) else None
        return StoreFigures(undelivered=count, undelivered_since=since, set_aside=aside)

    async def add_usage(self, used: Iterable[Used]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany(statements.USED, used)

        await self._run(work, changes=True)

    async def usage(self, since_minute: int) -> list[Used]:
        def work(connection: sqlite3.Connection) -> list[Used]:
            found = quarantine.usage(connection, self._clock())
            connection.execute("DELETE FROM usage WHERE minute < ?", (since_minute,))
            return [used for used in found if used.minute >= since_minute]

        return await self._run(work, changes=True)

    async def _execute(
        self, statement: str, values: Sequence[object] | Mapping[str, object]
    ) -> int:
        """Change rows, and return how many."""
        return await self._run(
            lambda connection: connection.execute(statement, values).rowcount, changes=True
        )

    async def _jobs(self, where: str, values: tuple[object, ...]) -> list[StoredJob]:
        return await self._run(lambda found: quarantine.jobs(found, where, values, self._clock()))

    async def _rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return await self._run(lambda connection: connection.execute(query, values).fetchall())


def keeps_jobs_of(owner: str, path: Path) -> bool:
    """Whether a file has jobs of an owner, or cannot be read; a service may have it open."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
        ) as connection:
            found = connection.execute("SELECT 1 FROM jobs WHERE key = ? LIMIT 1", (owner,))
            return found.fetchone() is not None
    except sqlite3.Error:
        return True
