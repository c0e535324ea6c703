"""Disks that are full, locked, damaged, forbidden or gone, under a whole service."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

SLOW = {"CHILD_STEP_SECONDS": 0.3}
SQLITE = "jobs.sqlite"
MEGABYTE = 2**20


def limit_files(pid: int, size: int) -> None:
    """Let no file of a process grow beyond ``size`` bytes, as a disk without room does."""
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def written(folder: Path) -> dict[str, bytes]:
    """Return the files of the store that hold something."""
    files = [folder / SQLITE, folder / f"{SQLITE}-wal"]
    found = {path.name: path.read_bytes() for path in files if path.exists()}
    return {name: content for name, content in found.items() if content}


async def test_a_job_that_cannot_be_written_down_is_not_accepted(light, client_of, tmp_path):
    """503 says so, images are still made, and with room all is well again."""
    with light(DATA_DIR=tmp_path) as service:
        client = await client_of(service)
        await client.until_ready()
        before = await client.accepted()
        assert (await client.ended(before))["state"] == "succeeded"
        limit_files(service.process.pid, 1)
        status, refused = await client.submit()
        assert (status, refused["code"]) == (503, "store_unavailable")
        assert int(refused["retry_after"]) >= 1
        assert (await client.generate())[0] == 200
        assert (await client.job(before))["state"] == "succeeded"
        limit_files(service.process.pid, resource.RLIM_INFINITY)
        assert (await client.ended(await client.accepted()))["state"] == "succeeded"


async def test_an_end_that_cannot_be_written_down_waits_for_room(light, client_of, tmp_path):
    """The job ends with the reason as soon as the disk takes it; its owner never gets less."""
    with light(DATA_DIR=tmp_path, **SLOW) as service:
        client = await client_of(service)
        await client.until_ready()
        job = await client.accepted()
        await service.line("job_started")
        limit_files(service.process.pid, 1)
        await service.line("job_end_not_stored")
        assert (await client.job(job))["state"] == "running"
        limit_files(service.process.pid, resource.RLIM_INFINITY)
        end = await client.ended(job)
        assert (end["state"], end["error"]["code"]) == ("failed", "storage_full")


@pytest.fixture
def small_disk(tmp_path):
    """Return a command that mounts a disk of 80 MB at a folder, for what it starts only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f'mount -t tmpfs -o size=80m none "{folder}" && exec "$@"'
    command = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    return folder, command


def fill(path: Path) -> None:
    """Append to a file until not a block is left."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@pytest.mark.privileged
async def test_a_full_disk_refuses_jobs_and_takes_no_more(light, client_of, small_disk):
    """A real file system without a byte left; with room again all is well."""
    folder, command = small_disk
    with light(*command, DATA_DIR=folder, **SLOW) as service:
        client = await client_of(service)
        await client.until_ready()
        seen = Path(f"/proc/{service.process.pid}/root{folder}")
        kept = await client.accepted()
        assert (await client.ended(kept))["state"] == "succeeded"
        ballast = seen / "ballast"
        # Below what images leave free: the store still works, and says what became of a job.
        late = await client.accepted()
        await service.line("job_started", count=2)
        ballast.write_bytes(bytes(30 * MEGABYTE))
        status, refused = await client.submit()
        assert (status, refused["code"]) == (503, "storage_full")
        assert (await client.generate())[0] == 200
        end = await client.ended(late)
        assert (end["state"], end["error"]["code"]) == ("failed", "storage_full")
        fill(ballast)
        _, refused = await client.submit()
        assert "make room" in refused["detail"]
        assert (await client.image(kept))[:4] == b"\x89PNG"
        ballast.unlink()
        assert (await client.ended(await client.accepted()))["state"] == "succeeded"


async def test_a_locked_database_is_waited_for(light, client_of, tmp_path):
    """Another program holds a transaction: new jobs get 503, and an end waits for its turn."""
    with light(DATA_DIR=tmp_path, **SLOW) as service:
        client = await client_of(service)
        await client.until_ready()
        job = await client.accepted()
        await service.line("job_started")
        with closing(sqlite3.connect(tmp_path / SQLITE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            status, refused = await client.submit()
            assert (status, refused["code"]) == (503, "store_unavailable")
            assert "locked by another program" in refused["detail"]
            assert (await client.get("/health"))[0] == 200
            other.execute("ROLLBACK")
        assert (await client.ended(job))["state"] == "succeeded"
        assert (await client.ended(await client.accepted()))["state"] == "succeeded"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"not a database any more")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "journal"),
    # A journal that holds the first page, too, makes good for one that is overwritten.
    [
        *((cut, True), (scribble, False)),
        pytest.param(cut, False, marks=pytest.mark.long),
        *(pytest.param(empty, journal, marks=pytest.mark.long) for journal in (True, False)),
    ],
)
async def test_a_damaged_database_ends_the_start_with_the_cure(
    light, client_of, tmp_path, damage, journal
):
    """It does not begin anew, and touches nothing: nobody's jobs vanish without a word."""
    with light(DATA_DIR=tmp_path, CHILD_STEP_SECONDS=1) as service:
        client = await client_of(service)
        await client.until_ready()
        for _ in range(6):
            await client.accepted()
        service.kill()
    if not journal:
        with closing(sqlite3.connect(tmp_path / SQLITE)) as found:
            found.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damage(tmp_path / SQLITE)
    before = written(tmp_path)
    with light(DATA_DIR=tmp_path) as service:
        assert await asyncio.to_thread(service.process.wait, 60) == 73
        await asyncio.to_thread(service._reader.join)
        said = "".join(service.output)
    assert "is damaged" in said
    assert "restore a backup" in said
    assert written(tmp_path) == before


async def test_a_truncated_result_is_told_and_harms_no_other(light, client_of, tmp_path):
    """500 with the reason for that job; its neighbour is served."""
    with light(DATA_DIR=tmp_path) as service:
        client = await client_of(service)
        jobs = [await client.accepted() for _ in range(2)]
        for job in jobs:
            assert (await client.ended(job))["state"] == "succeeded"
        cut(tmp_path / "results" / f"{jobs[0]}.zip")
        status, body = await client.get(f"/jobs/{jobs[0]}/image")
        assert (status, body["code"]) == (500, "result_damaged")
        assert (await client.image(jobs[1]))[:4] == b"\x89PNG"


async def test_a_folder_that_cannot_be_written_ends_the_start_with_the_cure(light, tmp_path):
    """A read-only DATA_DIR is a wrong setting, not a service without memory."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o555)
    # Root may write everywhere, unless it gives that up.
    drop = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root without setpriv can write every folder")
    with light(*(drop if os.geteuid() == 0 else ()), DATA_DIR=folder) as service:
        assert await asyncio.to_thread(service.process.wait, 60) != 0
        await asyncio.to_thread(service._reader.join)
        said = "".join(service.output)
    assert "writable" in said
    assert "Traceback" not in said
    assert list(folder.iterdir()) == []


async def test_a_folder_that_is_moved_away_is_told_and_found_again(light, client_of, tmp_path):
    """Jobs get 503, images are made, and with the folder back all is as it was."""
    folder = tmp_path / "data"
    with light(DATA_DIR=folder) as service:
        client = await client_of(service)
        kept = await client.accepted()
        assert (await client.ended(kept))["state"] == "succeeded"
        folder.rename(tmp_path / "elsewhere")
        status, refused = await client.submit()
        assert (status, refused["code"]) == (503, "store_unavailable")
        assert (await client.generate())[0] == 200
        (tmp_path / "elsewhere").rename(folder)
        assert (await client.image(kept))[:4] == b"\x89PNG"
        assert (await client.ended(await client.accepted()))["state"] == "succeeded"


async def test_a_folder_that_is_deleted_ends_no_service(light, client_of, tmp_path):
    """What was in it is gone with it; images are made, and the stop comes to its end."""
    folder = tmp_path / "data"
    with light(DATA_DIR=folder) as service:
        client = await client_of(service)
        assert (await client.ended(await client.accepted()))["state"] == "succeeded"
        shutil.rmtree(folder)
        assert (await client.submit())[1]["code"] == "store_unavailable"
        assert (await client.generate())[0] == 200
        service.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(service.process.wait, 60) == 0
    with light(DATA_DIR=folder) as service:
        client = await client_of(service)
        assert (await client.ended(await client.accepted()))["state"] == "succeeded"
