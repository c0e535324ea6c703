"""Input images on a disk that does what disks do."""

import os
import shutil
from types import SimpleNamespace

import pytest

from service.errors import InputLost, StorageFull, StorageUnavailable
from service.jobs.inputs.base import IMAGE, MASK
from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.files import FileInputs
from service.jobs.inputs.memory import MemoryInputs
from service.jobs.job import new_id
from service.jobs.results.base import KEEP_FREE
from tests.unit.jobs.inputs.test_inputs import PHOTO, empty, received


async def test_only_the_user_of_the_service_can_read_them(folder):
    """The folder and each file are its own."""
    await folder.keep(new_id(), {IMAGE: received(folder)})
    (path,) = folder.folder.iterdir()
    assert folder.folder.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_start_removes_what_a_crash_left(folder):
    """The parts of uploads, and no image of a job."""
    job_id = new_id()
    await folder.keep(job_id, {IMAGE: received(folder)})
    received(folder)
    with folder.receive("anna") as receiver:
        receiver.write(PHOTO)
        assert len([*folder.folder.iterdir()]) == 3
        await FileInputs(folder.folder, UploadBounds(1)).open()
        assert [path.name for path in folder.folder.iterdir()] == [f"{job_id}.{IMAGE}"]


async def test_young_images_stay_whoever_knows_them(folder, clock):
    """Their job may have been accepted a moment ago."""
    job_id = new_id()
    await folder.keep(job_id, {IMAGE: received(folder)})
    clock.now += 9
    assert await folder.clean(()) == []
    clock.now += 2
    assert await folder.clean(()) == [job_id]


async def test_files_of_others_are_left_alone(folder, clock):
    """Neither counted nor removed."""
    (folder.folder / "notes.image").write_text("mine")
    (folder.folder / f"{new_id()}.txt").write_text("mine")
    clock.now += 1_000
    assert await folder.clean(()) == []
    assert await folder.sizes() == {}


async def test_a_full_disk_takes_no_upload(folder, monkeypatch):
    """Other data have room left, and nothing of it stays."""
    free = SimpleNamespace(free=KEEP_FREE + 150)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
    with folder.receive("anna") as receiver:
        receiver.write(PHOTO[:100])
        with pytest.raises(StorageFull, match="no room left"):
            receiver.write(PHOTO[:200])
    monkeypatch.undo()
    await empty(folder)


@pytest.mark.parametrize("call", ["fsync", "utime", "replace"])
async def test_a_disk_that_fails_keeps_all_images_of_a_job_or_none(folder, monkeypatch, call):
    """Whichever of the calls it is, at the second image."""
    uploads = {IMAGE: received(folder), MASK: received(folder)}
    done, left = getattr(os, call), [1]

    def failing(*args, **kwargs):
        if not left:
            raise OSError(5, "Input/output error")
        left.pop()
        return done(*args, **kwargs)

    monkeypatch.setattr(os, call, failing)
    job_id = new_id()
    with pytest.raises(StorageUnavailable, match=r"inputs.*Input/output error"):
        await folder.keep(job_id, uploads)
    monkeypatch.undo()
    assert await folder.sizes() == {}
    for upload in uploads.values():
        upload.discard()
    await empty(folder)


async def test_a_link_is_no_image(folder, tmp_path):
    """Nothing outside of the folder can be read through it."""
    job_id = new_id()
    (tmp_path / "secret").write_text("secret")
    (folder.folder / f"{job_id}.{IMAGE}").symlink_to(tmp_path / "secret")
    with pytest.raises(InputLost):
        folder.read(job_id, IMAGE)


async def test_a_folder_is_no_image(folder):
    """It is reported as one that cannot be read, and hinders no other job."""
    job_id = new_id()
    (folder.folder / f"{job_id}.{IMAGE}").mkdir()
    with pytest.raises((InputLost, StorageUnavailable)):
        folder.read(job_id, IMAGE)
    assert not await folder.delete(job_id)


async def test_a_folder_that_is_gone_says_so(folder):
    """Uploads are refused with the cure."""
    folder.folder.rmdir()
    with folder.receive("anna") as receiver, pytest.raises(StorageUnavailable, match="check"):
        receiver.write(PHOTO)
    with pytest.raises(StorageUnavailable):
        await folder.sizes()


async def test_an_upload_of_another_store_is_refused(folder):
    """It is a mistake of ours, and leaves nothing."""
    other = received(MemoryInputs(UploadBounds(10_000)))
    with pytest.raises(TypeError):
        await folder.keep(new_id(), {IMAGE: received(folder), MASK: other})
    assert await folder.sizes() == {}
