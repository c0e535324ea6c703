"""Finished pictures on the disk."""

import errno
import os
import random
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

from service.errors import (
    JobExpired,
    NotFound,
    ResultDamaged,
    StorageFull,
    StorageUnavailable,
)
from service.jobs.job import new_id
from service.jobs.results import Encoded, Results

PICTURE = Encoded(data=b"\x89PNG" + b"one" * 100, media_type="image/png")
OTHER = Encoded(data=b"RIFF" + b"two" * 100, media_type="image/webp")


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def results(tmp_path, clock) -> Results:
    """Make a folder of pictures."""
    made = Results(tmp_path / "results", grace_seconds=10.0, clock=clock)
    made.open()
    return made


def files(results):
    return sorted(path.name for path in results.folder.iterdir())


def test_pictures_come_back_as_they_were(results):
    """Each with its media type, and what was said beside them."""
    job_id = new_id()
    size = results.write(job_id, [PICTURE, OTHER], {"seed": 7, "prompt": "ä boat"})
    assert results.read(job_id) == PICTURE
    assert results.read(job_id, 1) == OTHER
    assert results.metadata(job_id) == {"seed": 7, "prompt": "ä boat"}
    assert files(results) == [f"{job_id}.zip"]
    assert results.used_bytes == size > len(PICTURE.data) + len(OTHER.data)
    with pytest.raises(NotFound, match="2 pictures"):
        results.read(job_id, 2)
    with pytest.raises(NotFound):
        results.read(job_id, -1)


def test_any_tool_opens_the_file(results):
    """An operator needs no program of ours."""
    job_id = new_id()
    results.write(job_id, [PICTURE], {})
    with zipfile.ZipFile(results.folder / f"{job_id}.zip") as file:
        assert (file.testzip(), file.namelist()) == (None, ["0", "about.json"])


def test_pictures_are_private(results):
    """Only the user of the service may read them."""
    results.write(new_id(), [PICTURE], {})
    places = [results.folder, *results.folder.iterdir()]
    assert {path.stat().st_mode & 0o077 for path in places} == {0}


def test_a_job_that_ran_twice_keeps_its_last_pictures(results):
    """A crash between the pictures and the row makes it run again."""
    job_id = new_id()
    results.write(job_id, [PICTURE, PICTURE], {"run": 1})
    results.write(job_id, [OTHER], {"run": 2})
    assert (results.read(job_id), results.metadata(job_id)) == (OTHER, {"run": 2})
    assert files(results) == [f"{job_id}.zip"]


def test_what_is_deleted_is_gone(results):
    """Asking for it says so."""
    job_id = new_id()
    results.write(job_id, [PICTURE], {})
    assert results.delete(job_id)
    assert not results.delete(job_id)
    with pytest.raises(JobExpired):
        results.read(job_id)


@pytest.mark.parametrize(
    "job_id",
    ["", ".", "..", "../" * 9 + "etc/passwd", "a" * 31, "A" * 32, "a" * 33, "a" * 32 + "\n",
     "/" + "a" * 31, "a" * 31 + "\0", "\u0660" * 32],
)  # fmt: skip
def test_no_id_leads_out_of_the_folder(results, job_id):
    """Only what the service gives out is an id."""
    for call in (results.read, results.delete, results.metadata):
        with pytest.raises(NotFound):
            call(job_id)
    with pytest.raises(NotFound):
        results.write(job_id, [PICTURE], {})
    assert files(results) == []


def test_the_old_go_and_then_the_oldest_of_too_much(results, clock):
    """First by age, then by size, never one within the grace period."""
    ids = []
    for clock.now in (1_000.0, 1_100.0, 1_200.0, 1_300.0):
        ids.append(new_id())
        size = results.write(ids[-1], [PICTURE], {})
    clock.now = 1_305.0
    assert results.sweep(1_000.0, 10 * size) == []
    assert results.sweep(250.0, 10 * size) == [ids[0]]
    assert results.sweep(250.0, 2 * size) == [ids[1]]
    assert results.sweep(0.0, 0) == [ids[2]]
    assert files(results) == [f"{ids[3]}.zip"]
    clock.now = 1_310.0
    assert results.sweep(1_000.0, 0) == [ids[3]]


@pytest.mark.parametrize("seed", range(10))
def test_any_sweep_keeps_the_youngest_that_fit(results, clock, seed):
    """What stays is a run of the youngest: nothing stays that is older than what went."""
    rng = random.Random(seed)  # noqa: S311 - test values
    ages = {}
    for _ in range(12):
        job_id = new_id()
        clock.now = 1_000.0 + rng.randrange(1_000)
        results.write(job_id, [Encoded(data=bytes(rng.randrange(500)), media_type="a/b")], {})
        ages[job_id] = 2_000.0 - clock.now
    clock.now, most = 2_000.0, rng.randrange(6_000)
    removed = results.sweep(700.0, most)
    left = set(ages) - set(removed)
    assert min((ages[one] for one in removed), default=1e9) >= max(
        (ages[one] for one in left), default=0
    )
    assert all(ages[one] <= 700 for one in left)
    assert results.used_bytes <= most or all(ages[one] < 10 for one in left)
    assert removed == sorted(removed, key=lambda one: (-ages[one], one))


def test_a_clock_that_was_set_back_removes_nothing_young(results, clock):
    """Files from the future are the youngest there are."""
    job_id = new_id()
    results.write(job_id, [PICTURE], {})
    clock.now = 10.0
    assert results.sweep(0.0, 0) == []
    assert results.read(job_id) == PICTURE


def test_a_start_clears_up_after_a_crash(results, clock):
    """Half-written files go at once, pictures without a job after the grace period."""
    known, unknown, young = new_id(), new_id(), new_id()
    results.write(known, [PICTURE], {})
    results.write(unknown, [PICTURE], {})
    (results.folder / f"{new_id()}.part").write_bytes(b"half a pic")
    foreign = results.folder / "notes.txt"
    foreign.write_text("not ours")
    clock.now += 60
    results.write(young, [PICTURE], {})
    results.open()
    assert files(results) == sorted(["notes.txt", f"{known}.zip", f"{unknown}.zip", f"{young}.zip"])
    assert results.clean({known}) == [unknown]
    assert files(results) == sorted(["notes.txt", f"{known}.zip", f"{young}.zip"])


class Disk(NamedTuple):
    """What ``shutil.disk_usage`` returns."""

    total: int
    used: int
    free: int


def test_room_is_left_for_the_job_store(results, monkeypatch):
    """A picture that would take the last of the disk is refused before it is written."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(2**40, 2**40, 64 * 2**20 + 100))
    with pytest.raises(StorageFull, match="make room") as refused:
        results.write(new_id(), [PICTURE], {})
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
def test_a_disk_that_fails_leaves_what_was_there(results, monkeypatch, call, number, kind):
    """The earlier pictures of the job stay, whole, and nothing stays beside them."""
    job_id = new_id()
    results.write(job_id, [PICTURE], {})

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(kind):
            results.write(job_id, [OTHER, OTHER], {})
    assert files(results) == [f"{job_id}.zip"]
    assert results.read(job_id) == PICTURE


LIMITED = """
import resource, sys
from pathlib import Path
from service.errors import StorageFull
from service.jobs.results import Encoded, Results

results = Results(Path(sys.argv[1]))
results.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
results.write("a" * 32, [Encoded(data=b"x" * 3000, media_type="image/png")], {})
try:
    results.write("b" * 32, [Encoded(data=b"x" * 9000, media_type="image/png")], {})
except StorageFull:
    print(sorted(path.name[:1] + path.suffix for path in Path(sys.argv[1]).iterdir()))
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


def test_bytes_are_on_the_disk_before_they_have_a_name(results, monkeypatch):
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
    results.write(new_id(), [PICTURE], {})
    assert calls == ["file", "rename", "folder"]


def test_damage_is_told_and_never_shown(results):
    """Whatever bit turned over: the picture is as it was made, or there is none."""
    job_id = new_id()
    results.write(job_id, [Encoded(data=b"pixels" * 4, media_type="image/png")], {"seed": 1})
    path = results.folder / f"{job_id}.zip"
    content = path.read_bytes()
    wrong = []
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        with capture_logs(), suppress(ResultDamaged):
            if results.read(job_id).data != b"pixels" * 4:
                wrong.append(at)
    assert wrong == []


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_damage(results, part):
    """No half of a picture is served."""
    job_id = new_id()
    path = results.folder / f"{job_id}.zip"
    size = results.write(job_id, [PICTURE], {})
    os.truncate(path, int(size * part))
    for call in (results.read, results.metadata):
        with pytest.raises(ResultDamaged, match="send the request again"):
            call(job_id)


def test_a_folder_that_went_away_is_told(results):
    """An operator unmounted it, or deleted it; the path itself stays in the log."""
    results.folder.rmdir()
    with pytest.raises(StorageUnavailable, match="check that it is there") as refused:
        results.write(new_id(), [PICTURE], {})
    assert str(results.folder.parent) not in refused.value.detail
    with pytest.raises(StorageUnavailable):
        results.sweep(1, 1)
    results.folder.write_text("a file in its place")
    with pytest.raises(StorageUnavailable):
        results.open()
    with pytest.raises(StorageUnavailable):
        results.delete(new_id())
    with pytest.raises(StorageUnavailable):
        results.read(new_id())


def test_one_file_that_cannot_go_does_not_keep_the_others(results, clock):
    """It stays, and is tried again next time."""
    ids = sorted(new_id() for _ in range(2))
    (results.folder / f"{ids[0]}.zip").mkdir()  # What only looks like pictures.
    os.utime(results.folder / f"{ids[0]}.zip", (0, 0))
    results.write(ids[1], [PICTURE], {})
    clock.now += 100
    assert results.sweep(50.0, 0) == [ids[1]]
    assert files(results) == [f"{ids[0]}.zip"]


def test_there_is_room_on_a_disk_with_room(results):
    """The figure is the system's."""
    assert results.free_bytes > 0
