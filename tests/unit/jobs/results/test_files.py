"""What images in files promise beyond the others."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from service.errors import ResultDamaged, StorageFull, StorageUnavailable
from service.images.encoded import Encoded
from service.jobs.job import new_id
from tests.support.jobs.kept_jobs import png_of

IMAGE = Encoded(data=png_of(8, 8, b"one" * 100), media_type="image/png")
OTHER = Encoded(data=png_of(16, 8, b"two" * 100), media_type="image/png")


@pytest.fixture
def results(folder):
    return folder


def files(results):
    return sorted(path.name for path in results.folder.iterdir())


async def test_any_tool_opens_the_file(results):
    """An operator needs no program of ours."""
    job_id = new_id()
    await results.write(job_id, [IMAGE], {})
    with zipfile.ZipFile(results.folder / f"{job_id}.zip") as file:
        assert (file.testzip(), file.namelist()) == (None, ["0", "about.json"])


async def test_images_are_private(results):
    """Only the user of the service may read them."""
    await results.write(new_id(), [IMAGE], {})
    places = [results.folder, *results.folder.iterdir()]
    assert {path.stat().st_mode & 0o077 for path in places} == {0}


async def test_a_start_clears_up_after_a_crash(results, clock):
    """Half-written files go at once, images without a job after the grace period."""
    known, unknown, young = new_id(), new_id(), new_id()
    await results.write(known, [IMAGE], {})
    await results.write(unknown, [IMAGE], {})
    (results.folder / f"{new_id()}.part").write_bytes(b"half a pic")
    foreign = results.folder / "notes.txt"
    foreign.write_text("not ours")
    clock.now += 60
    await results.write(young, [IMAGE], {})
    await results.open()
    assert files(results) == sorted(["notes.txt", f"{known}.zip", f"{unknown}.zip", f"{young}.zip"])
    assert await results.clean({known}) == [unknown]
    assert files(results) == sorted(["notes.txt", f"{known}.zip", f"{young}.zip"])


class Disk(NamedTuple):
    """What ``shutil.disk_usage`` returns."""

    total: int
    used: int
    free: int


async def test_room_is_left_for_the_job_store(results, monkeypatch):
    """An image that would take the last of the disk is refused before it is written."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(2**40, 2**40, 64 * 2**20 + 100))
    with pytest.raises(StorageFull, match="make room") as refused:
        await results.write(new_id(), [IMAGE], {})
    assert refused.value.retry_after == 30.0
    assert files(results) == []


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EROFS, StorageUnavailable),
        (errno.EIO, StorageUnavailable),
    ],
)
async def test_a_disk_that_fails_leaves_what_was_there(results, monkeypatch, call, number, kind):
    """The earlier images of the job stay, whole, and nothing stays beside them."""
    job_id = new_id()
    await results.write(job_id, [IMAGE], {})

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(kind):
            await results.write(job_id, [OTHER, OTHER], {})
    assert files(results) == [f"{job_id}.zip"]
    assert await results.read(job_id) == IMAGE


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from service.errors import StorageFull
from service.images.encoded import Encoded
from service.jobs.results.files import FileResults
from tests.support.jobs.kept_jobs import png_of

async def main():
    results = FileResults(Path(sys.argv[1]))
    await results.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    await results.write("a" * 32, [Encoded(data=b"x" * 3000, media_type="image/png")], {})
    try:
        await results.write("b" * 32, [Encoded(data=b"x" * 9000, media_type="image/png")], {})
    except StorageFull:
        print(sorted(path.name[:1] + path.suffix for path in Path(sys.argv[1]).iterdir()))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size.")
def test_a_write_that_ends_half_way_is_taken_back(tmp_path):
    """A real one: the system takes a part of the bytes and no more."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "results"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "['a.zip']"


async def test_bytes_are_on_the_disk_before_they_have_a_name(results, monkeypatch):
    """The file first, then its name, then the folder that holds the name."""
    calls = []
    fsync, replace = os.fsync, Path.replace

    def synced(file):
        calls.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        fsync(file)

    def renamed(path, target):
        calls.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    await results.write(new_id(), [IMAGE], {})
    assert calls == ["file", "rename", "folder"]


async def test_damage_is_told_and_never_shown(results):
    """Whatever bit turned over: the image is as it was made, or there is none."""
    job_id = new_id()
    made = Encoded(data=png_of(8, 8, b"pixels" * 4), media_type="image/png")
    await results.write(job_id, [made], {"seed": 1})
    path = results.folder / f"{job_id}.zip"
    content = path.read_bytes()
    wrong = []
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        with capture_logs(), suppress(ResultDamaged):
            if await results.read(job_id) != made:
                wrong.append(at)
    assert wrong == []


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.99])
async def test_a_truncated_file_is_damage(results, part):
    """No half of an image is served."""
    job_id = new_id()
    path = results.folder / f"{job_id}.zip"
    size = await results.write(job_id, [IMAGE], {})
    os.truncate(path, int(size * part))
    for call in (results.read, results.metadata):
        with pytest.raises(ResultDamaged, match="send the request again"):
            await call(job_id)


async def test_a_folder_that_went_away_is_told(results):
    """An operator unmounted it, or deleted it; the path itself stays in the log."""
    results.folder.rmdir()
    with pytest.raises(StorageUnavailable, match="check that it is there") as refused:
        await results.write(new_id(), [IMAGE], {})
    assert str(results.folder.parent) not in refused.value.detail
    with pytest.raises(StorageUnavailable):
        await results.sweep(1, 1)
    results.folder.write_text("a file in its place")
    with pytest.raises(StorageUnavailable):
        await results.open()
    with pytest.raises(StorageUnavailable):
        await results.delete(new_id())
    with pytest.raises(StorageUnavailable):
        await results.read(new_id())


async def test_one_file_that_cannot_go_does_not_keep_the_others(results, clock):
    """It stays, and is tried again next time."""
    ids = sorted(new_id() for _ in range(2))
    (results.folder / f"{ids[0]}.zip").mkdir()  # What only looks like images.
    os.utime(results.folder / f"{ids[0]}.zip", (0, 0))
    await results.write(ids[1], [IMAGE], {})
    clock.now += 100
    assert await results.sweep(50.0, 0) == [ids[1]]
    assert files(results) == [f"{ids[0]}.zip"]


async def test_there_is_room_on_a_disk_with_room(results):
    """The figure is the system's."""
    assert results.free_bytes > 0
