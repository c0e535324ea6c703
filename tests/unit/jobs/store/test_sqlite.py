"""What the job store in SQLite promises beyond the others."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from service.core.outcome import Delivery
from service.errors import OutOfMemory
from service.jobs.job import FINAL, JobState
from service.jobs.store.base import JobEnd
from service.jobs.store.schema import UNFINISHED
from service.jobs.store.sqlite import SqliteStore
from tests.unit.jobs.rows import ended, stored

SUCCEEDED, FAILED, QUEUED = JobState.SUCCEEDED, JobState.FAILED, JobState.QUEUED


def test_unfinished_means_the_same_in_both_languages():
    """The index and the states are written down in two places."""
    assert f"state IN {tuple(str(s) for s in JobState if s not in FINAL)}" == UNFINISHED


async def test_a_request_of_another_version_is_marked(sqlite, tmp_path):
    """It must be failed with a reason, not run as something else."""
    kept = await sqlite.add(stored())
    with sqlite3.connect(tmp_path / "data" / "jobs.sqlite3") as other:
        other.execute("""UPDATE jobs SET request = '{"prompt": "a", "of_tomorrow": "b"}'""")
    other.close()
    assert [one.complete for one in await sqlite.unfinished()] == [False]
    assert not (await sqlite.get(kept.id, "anna")).complete


async def test_nothing_of_what_a_client_wrote_is_left_of_an_expired_job(sqlite, tmp_path):
    """Only its id, its owner and its place are."""
    kept = await sqlite.add(
        stored(prompt="private", webhook="https://a.org/private", idempotency_key="private")
    )
    await sqlite.finish(
        kept.id, JobEnd(state=FAILED, error=OutOfMemory("private"), metadata={"p": "private"})
    )
    await sqlite.deliver(kept.id, Delivery(detail="private"))
    await sqlite.expire(ids=[kept.id])
    with sqlite3.connect(tmp_path / "data" / "jobs.sqlite3") as other:
        (row,) = other.execute("SELECT * FROM jobs").fetchall()
    other.close()
    assert kept.id in row
    assert not [value for value in row if "private" in str(value)]


WRITER = """
import asyncio, sys
from pathlib import Path
from service.core.spec import GenerationSpec
from service.jobs.job import JobState, new_id
from service.jobs.store.base import JobEnd
from service.jobs.store.sqlite import SqliteStore
from service.jobs.store.stored import StoredJob

async def main():
    async with SqliteStore(Path(sys.argv[1])) as store:
        for number in range(100_000):
            request = GenerationSpec(prompt=str(number))
            job = StoredJob(id=new_id(), owner="anna", request=request, created_at=0.0)
            await store.add(job)
            print("added", job.id, flush=True)
            if number % 2:
                await store.finish(job.id, JobEnd(state=JobState.SUCCEEDED))
                print("ended", job.id, flush=True)

asyncio.run(main())
"""


def killed(path: Path, lines: int) -> list[list[str]]:
    """Kill a process in the middle of writing, and return what it said that it had done."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout
    return [
        line.split() for line in said if line.startswith(("added", "ended")) and line[-1] == "\n"
    ]


async def test_what_was_kept_outlives_a_kill(tmp_path):
    """Every answer that left before a kill -9 holds after it."""
    path = tmp_path / "jobs.sqlite3"
    said = [line for lines in (7, 20, 33) for line in killed(path, lines)]
    added = [name for what, name in said if what == "added"]
    ended = [name for what, name in said if what == "ended"]
    async with SqliteStore(path) as store:
        states = {one: (await store.get(one, "anna")).state for one in added}
        assert {states[one] for one in ended} == {SUCCEEDED}
        unfinished = [one.id for one in await store.unfinished()]
        assert [one for one in unfinished if one in states] == [
            one for one in added if states[one] is QUEUED
        ]
        # At most one job per kill was kept without its answer having left.
        assert sum((await store.counts()).values()) - len(added) <= 3


async def test_the_event_loop_runs_while_the_store_waits(sqlite, tmp_path):
    """Another program holds the file: calls wait, everything else goes on."""
    other = sqlite3.connect(tmp_path / "data" / "jobs.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    adding = asyncio.create_task(sqlite.add(stored()))
    turns = 0
    while turns < 100:
        await asyncio.sleep(0)
        turns += 1
    assert not adding.done()
    other.execute("COMMIT")
    other.close()
    await adding
    assert (await sqlite.counts())[QUEUED] == 1


async def test_a_store_is_private(sqlite, tmp_path):
    """Prompts are in it: only its user may read the file, its journal and its folder."""
    await sqlite.add(stored())
    files = [Path(tmp_path / "data"), *(tmp_path / "data").iterdir()]
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


async def test_room_of_expired_jobs_is_used_again(sqlite, tmp_path):
    """A flood of jobs that are cancelled at once makes the file no larger than its bound."""
    path = tmp_path / "data" / "jobs.sqlite3"
    sizes = []
    for _ in range(6):
        for _ in range(50):
            await ended(sqlite, "anna", prompt="é" * 3000)
        await sqlite.expire_without_images(max_age_seconds=50, most=20)
        await sqlite.purge(1000, most=20)
        await sqlite._database.run(
            lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        )
        sizes.append(path.stat().st_size)
    assert sizes[-1] <= 1.5 * sizes[0]
