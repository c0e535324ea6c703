"""What every input store keeps of images that requests bring, and for how long."""

import asyncio
import hashlib

import pytest

from service.errors import InputLost, NotFound, TooManyUploads, UploadsFull
from service.jobs.inputs.base import IMAGE, MASK
from service.jobs.job import new_id
from service.system.executors import STORAGE

PHOTO = b"a photo" * 100


def received(inputs, data=PHOTO, owner="anna"):
    """Receive an image in two parts."""
    with inputs.receive(owner) as receiver:
        receiver.write(data[:100])
        receiver.write(data[100:])
        return receiver.done()


def left(inputs):
    """Return what is there besides the images of jobs."""
    folder = getattr(inputs, "folder", None)
    return folder is not None and any(path.suffix == ".part" for path in folder.iterdir())


async def empty(inputs, held=0):
    """Wait until nothing is held that no job has, or no more than so many bytes."""
    async with asyncio.timeout(20):
        while inputs.receiving_bytes > held or (left(inputs) and not held):
            await STORAGE.run(int)  # On one of the threads that remove files.


async def test_an_image_is_received_and_read_as_it_was_sent(inputs):
    """With the digest that tells it from others."""
    upload = received(inputs)
    assert (upload.read(), upload.size) == (PHOTO, len(PHOTO))
    assert upload.digest == hashlib.sha256(PHOTO).hexdigest()
    assert inputs.receiving_bytes == len(PHOTO)


async def test_a_job_keeps_its_images(inputs, counted):
    """They outlive the request that brought them, which discards its uploads."""
    job_id = new_id()
    uploads = {IMAGE: received(inputs), MASK: received(inputs, b"a mask" * 50)}
    await inputs.keep(job_id, uploads)
    for upload in uploads.values():
        upload.discard()
    assert (inputs.read(job_id, IMAGE), inputs.read(job_id, MASK)) == (PHOTO, b"a mask" * 50)
    assert await inputs.sizes() == {job_id: len(PHOTO) + 300}
    assert counted == ["received", "received", "kept", "kept"]
    assert await inputs.delete(job_id)
    assert not await inputs.delete(job_id)
    with pytest.raises(InputLost, match="The image"):
        inputs.read(job_id, IMAGE)
    assert await inputs.sizes() == {}
    await empty(inputs)


async def test_an_upload_that_no_job_keeps_leaves_nothing(inputs):
    """However often it is discarded."""
    upload = received(inputs)
    upload.discard()
    upload.discard()
    await empty(inputs)


async def test_an_upload_that_is_claimed_outlives_its_request(inputs):
    """A client that hangs up while its job is accepted takes nothing from the job."""
    job_id, upload = new_id(), received(inputs)
    upload.claim()
    upload.discard()
    await inputs.keep(job_id, {IMAGE: upload})
    upload.release()
    assert inputs.read(job_id, IMAGE) == PHOTO
    other = received(inputs)
    other.claim()
    other.discard()
    assert other.read() == PHOTO
    other.release()
    assert await inputs.delete(job_id)
    await empty(inputs)


async def test_an_upload_that_breaks_off_leaves_nothing(inputs, counted):
    """Neither bytes nor a share of the bound."""
    with inputs.receive("anna") as receiver:
        receiver.write(PHOTO)
    await empty(inputs)
    with pytest.raises(RuntimeError, match="over"):
        receiver.write(PHOTO)
    with pytest.raises(RuntimeError, match="over"):
        receiver.done()
    assert counted == ["broken"]


async def test_one_key_cannot_take_the_room_of_all(inputs, counted):
    """It is refused for itself, and told when to try again; others are taken in."""
    held = [received(inputs, bytes(2_000)) for _ in range(2)]
    with inputs.receive("anna") as receiver, pytest.raises(TooManyUploads) as refused:
        receiver.write(bytes(2_001))
    assert refused.value.retry_after == 5
    async with asyncio.timeout(20):
        while "refused" not in counted:  # It is when the upload has been given up, on a thread.
            await STORAGE.run(int)
    held.append(received(inputs, bytes(2_000)))
    with pytest.raises(TooManyUploads):
        inputs.receive("anna")
    held.append(received(inputs, bytes(4_000), "ben"))
    with pytest.raises(UploadsFull) as full:
        inputs.receive("ben")
    assert full.value.retry_after == 5
    assert counted.count("refused") == 3
    for upload in held:
        upload.discard()
    await empty(inputs)
    received(inputs, bytes(6_000)).discard()
    await empty(inputs)


async def test_an_empty_image_can_be_received(inputs):
    """It is for others to say that it is none."""
    with inputs.receive("anna") as receiver:
        upload = receiver.done()
    assert (upload.read(), upload.size) == (b"", 0)


@pytest.mark.parametrize("job_id", ["", "..", "../" * 9 + "etc/passwd", "A" * 32])
async def test_what_is_no_id_of_a_job_has_no_images(inputs, job_id):
    """Nothing else of the file system can be reached."""
    with pytest.raises(NotFound):
        inputs.read(job_id, IMAGE)
    with pytest.raises(NotFound):
        await inputs.delete(job_id)
    with pytest.raises(NotFound):
        await inputs.keep(job_id, {IMAGE: received(inputs)})


async def test_images_of_jobs_that_nobody_knows_are_removed(inputs, clock):
    """Those of known jobs stay."""
    known, unknown = new_id(), new_id()
    for job_id in (known, unknown):
        await inputs.keep(job_id, {IMAGE: received(inputs), MASK: received(inputs)})
    clock.now += 11
    assert await inputs.clean({known}) == [unknown]
    assert set(await inputs.sizes()) == {known}
