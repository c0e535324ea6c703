"""What is said when the file cannot be used, and that nothing is left half-done."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from service.errors import StoreError, StoreUnavailable
from service.jobs.store.database import Database
from service.jobs.store.schema import transaction


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.sqlite3"


@pytest.fixture
async def database(path):
    """Open a database with a table to write to."""
    opened = Database(path, busy_seconds=0.05)
    await opened.open()
    await opened.run(lambda c: c.execute("CREATE TABLE words (word TEXT)").rowcount)
    yield opened
    await opened.close()


def say(*words):
    """Write words, all or none."""

    def work(connection):
        with transaction(connection):
            for word in words:
                connection.execute("INSERT INTO words VALUES (?)", (word,))

    return work


def said(connection):
    return [row[0] for row in connection.execute("SELECT word FROM words ORDER BY rowid")]


async def test_a_locked_file_is_waited_for_and_then_refused(database, path):
    """With the cure and a time to come back; afterwards it works again."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by another program") as refused:
            await database.run(say("lost"))
        assert refused.value.retry_after == 1.0
        assert await database.run(said) == []  # Reading does not need the lock.
    await database.run(say("kept"))
    assert await database.run(said) == ["kept"]


async def test_those_who_wait_behind_a_wait_do_not_wait_as_long_once_more(path):
    """A hundred calls against a locked file end together, not one after the other."""
    database = Database(path, busy_seconds=0.5)
    await database.open()
    waits = []

    def patience(connection):
        waits.append(connection.execute("PRAGMA busy_timeout").fetchone()[0])

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(
            database.run(say("lost")), database.run(patience), return_exceptions=True
        )
    await database.close()
    assert isinstance(results[0], StoreUnavailable)
    assert waits[0] < 100


async def test_a_full_disk_leaves_nothing_half_written(database):
    """What was asked for in one go is all there, or not at all; with room it goes on."""
    pages = await database.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await database.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    with pytest.raises(StoreUnavailable, match="disk is full; make room") as refused:
        await database.run(say("first", "x" * 50_000))
    assert refused.value.retry_after == 30.0
    assert await database.run(said) == []
    await database.run(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
    await database.run(say("first", "x" * 50_000))
    assert len(await database.run(said)) == 2


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from service.errors import StoreUnavailable
from service.jobs.store.database import Database
from service.jobs.store.schema import transaction

def say(connection):
    with transaction(connection):
        for part in range(3):
            connection.execute("INSERT INTO words VALUES (?)", ("x" * 9000,))

async def main():
    database = Database(Path(sys.argv[1]), busy_seconds=0.1)
    await database.open()
    await database.run(lambda c: c.execute("CREATE TABLE words (word TEXT)").rowcount)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    kept = 0
    try:
        for _ in range(100):
            await database.run(say)
            kept += 1
    except StoreUnavailable as error:
        print("refused:", error.detail)
    (rows,) = await database.run(lambda c: c.execute("SELECT count(*) FROM words").fetchone())
    print("rows:", rows)
    print("kept:", kept)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await database.run(say)
    print("again:", kept + 1)
    await database.close()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size.")
def test_a_file_that_the_system_lets_grow_no_more_keeps_what_it_has(path):
    """A real write that fails: what was kept before is kept, the rest was refused."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, path],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line[:10])
    assert "check the room" in lines["refused"] or "is full" in lines["refused"]
    assert 0 < int(lines["kept"]) < 100
    assert int(lines["rows"]) == 3 * int(lines["kept"])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert len(said(connection)) == 3 * int(lines["again"])


async def test_a_read_only_file_is_told(database):
    """With what to change."""
    await database.run(lambda c: c.execute("PRAGMA query_only = 1").fetchone())
    with pytest.raises(StoreUnavailable, match="writable for the service's user"):
        await database.run(say("lost"))


async def test_damage_while_it_runs_is_told(database, path):
    """The words name the file, but not its folder: clients read them."""
    await database.run(say(*(f"{n}" * 2000 for n in range(50))))
    await database.run(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
    await database.run(lambda c: c.execute("PRAGMA cache_size = 0").fetchone())
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (path.stat().st_size - 8192))
    with pytest.raises(StoreUnavailable, match=r"jobs.sqlite3.*is damaged\. Nothing") as told:
        await database.run(said)
    assert str(path.parent) not in told.value.detail


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not delete open files.")
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_was_deleted_or_replaced_takes_nothing_more(database, path, replaced):
    """Writing to a deleted file succeeds, and is lost."""
    path.unlink()
    if replaced:
        path.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="deleted, moved or replaced"):
        await database.run(say("lost"))


async def test_a_store_in_use_is_refused(database, path):
    """A second service would run every job a second time."""
    with pytest.raises(StoreError, match="in use by another process"):
        await Database(path, busy_seconds=0.0).open()
    await database.run(say("still there"))


@pytest.mark.parametrize("kind", ["folder", "below a file"])
async def test_a_path_that_cannot_be_opened_is_told(tmp_path, kind):
    """It is named, with what to look at."""
    wrong = tmp_path / "jobs.sqlite3"
    if kind == "folder":
        wrong.mkdir()
    else:
        wrong.write_bytes(b"")
        wrong /= "jobs.sqlite3"
    database = Database(wrong, busy_seconds=0.0)
    with pytest.raises(StoreError, match="check the folder, its owner and its rights") as refused:
        await database.open()
    assert str(wrong) in refused.value.detail
    with pytest.raises(StoreUnavailable):
        await database.run(said)


async def test_a_failed_start_lets_go_of_the_file(path):
    """The operator cures it and starts again."""
    path.write_bytes(b"no database" * 100)
    database = Database(path, busy_seconds=0.0)
    with pytest.raises(StoreError, match="is damaged"):
        await database.open()
    path.unlink()
    await database.open()
    await database.open()
    await database.close()
    await database.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.run(said)


async def test_closing_waits_for_what_was_asked_before(database, path):
    """A job that was accepted in the last moment is kept."""
    saying = asyncio.create_task(database.run(say("last")))
    await asyncio.sleep(0)
    await database.close()
    await saying
    with closing(sqlite3.connect(path)) as connection:
        assert said(connection) == ["last"]


async def test_a_mistake_of_ours_is_no_fault_of_the_file(database):
    """It goes into the log with its traceback, not to the operator with a cure."""
    with pytest.raises(sqlite3.ProgrammingError):
        await database.run(lambda c: c.execute("SELECT ?").fetchone())
