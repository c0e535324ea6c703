"""Jobs with input images: what they keep, what the engine gets, and what is left of it."""

import asyncio
from dataclasses import replace

import pytest
from PIL import Image

from service.config.table import Config
from service.core.image import RawImage
from service.errors import Disconnected, InputLost, QueueFull, ShuttingDown, StoreUnavailable
from service.images.encode import files as encoded
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable.live_job import Durability, Terms
from service.jobs.inputs.base import IMAGE, MASK
from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.memory import MemoryInputs
from service.jobs.inputs.of_jobs import JobInputs
from service.jobs.job import JobState
from service.jobs.service import JobService
from service.system.executors import STORAGE
from service.telemetry.metrics import Metrics
from tests.support.jobs.kept_jobs import REQUEST, kept, over
from tests.support.jobs.photos import SIZE, left_half, png, uploaded
from tests.support.simulation.fake_engine import FakeEngine

PHOTO = png()


@pytest.fixture
def engine():
    return FakeEngine(step_seconds=None)


@pytest.fixture
async def memory(engine):
    """Start a service without a folder; return it and its store."""
    dispatcher = Dispatcher([engine], Metrics(), Config())
    store = MemoryInputs(UploadBounds(2**20))
    made = JobService(dispatcher, Metrics(), JobInputs(store))
    await dispatcher.start()
    async with asyncio.timeout(20):
        yield made, store
    await dispatcher.stop()


@pytest.fixture
async def disk(engine, tmp_path):
    """Start a service with a folder; return it and its store."""
    dispatcher = Dispatcher([engine], Metrics(), Config())
    folder = kept(tmp_path, dispatcher)
    async with asyncio.timeout(20), folder.opened():
        await dispatcher.start()
        yield folder.jobs, folder.inputs
        await dispatcher.stop()


@pytest.fixture(params=["memory", "disk"])
def service(request):
    return request.getfixturevalue(request.param)


async def gone(store):
    """Wait until the store has nothing of any job or request."""
    while await store.sizes() or store.receiving_bytes:
        await STORAGE.run(int)


def done_with(uploads):
    """Do as a request does when it is over."""
    for upload in uploads.values():
        upload.discard()


async def submitted(jobs, store, durability, image=PHOTO, mask=b"", **terms):
    """Submit a job with images, whose request is over then."""
    request, uploads = uploaded(store, image, mask)
    try:
        return await jobs.submit(request, "anonymous", durability, Terms(uploads=uploads, **terms))
    finally:
        done_with(uploads)


async def test_the_engine_gets_the_images_of_a_job_and_they_go_with_it(service, engine):
    """Those of a job that is not kept; prepared in its size."""
    jobs, store = service
    with await submitted(jobs, store, Durability.NONE, mask=left_half()) as handle:
        await engine.jobs(1)
        (given,) = engine.inputs.values()
        assert given.image == bytes((200, 30, 30)) * SIZE**2
        assert given.mask == (b"\xff" * (SIZE // 2) + bytes(SIZE // 2)) * SIZE
        assert (await store.sizes()).keys() == {handle.stored.id}
        await engine.step()
        await handle.wait()
    await gone(store)


async def test_what_is_not_repainted_is_the_image_as_it_was_sent(service, engine):
    """Byte for byte, in the images of a job whose results are in memory."""
    jobs, store = service
    with await submitted(jobs, store, Durability.NONE, mask=left_half()) as handle:
        await engine.jobs(1)
        await engine.step()
        await handle.wait()
        assert handle.finished is not None
        (image,) = handle.finished[1].images
    shown = Image.frombytes("RGB", (SIZE, SIZE), bytes(image.pixels))
    half = (SIZE // 2, 0, SIZE, SIZE)
    assert shown.crop(half).getcolors() == [(SIZE**2 // 2, (200, 30, 30))]
    assert len(shown.crop((0, 0, SIZE // 2, SIZE)).getcolors(SIZE**2) or ()) > 1
    assert handle.stored.state is JobState.SUCCEEDED


async def test_what_is_kept_has_the_image_around_what_was_repainted(disk, engine, monkeypatch):
    """In the files, too."""
    jobs, store = disk
    made: list[RawImage] = []
    monkeypatch.setattr(jobs._writer, "_encode", lambda result, *rest: _noted(made, result, *rest))
    handle = await submitted(jobs, store, Durability.PROMISED, mask=left_half())
    await engine.jobs(1)
    await engine.step()
    await handle.wait()
    (image,) = made
    shown = Image.frombytes("RGB", (SIZE, SIZE), bytes(image.pixels))
    assert shown.crop((SIZE // 2, 0, SIZE, SIZE)).getcolors() == [(SIZE**2 // 2, (200, 30, 30))]


def _noted(made, result, *rest):
    made.extend(result.images)
    return encoded(result, *rest)


async def test_images_of_a_kept_job_stay_with_its_results(disk, engine):
    """As long as the job is kept."""
    jobs, store = disk
    handle = await submitted(jobs, store, Durability.PROMISED)
    await engine.jobs(1)
    await engine.step()
    await handle.wait()
    assert store.read(handle.stored.id, IMAGE) == PHOTO
    assert store.receiving_bytes == 0


async def test_a_client_that_hangs_up_while_its_job_is_accepted_takes_nothing_from_it(
    disk, engine, monkeypatch
):
    """A job that nobody was told of is still run with its images."""
    jobs, store = disk
    keep, hold, held = store.keep, asyncio.Event(), asyncio.Event()

    async def slowly(*args, **kwargs):
        held.set()
        await hold.wait()
        await keep(*args, **kwargs)

    monkeypatch.setattr(store, "keep", slowly)
    client = asyncio.create_task(submitted(jobs, store, Durability.PROMISED))
    await held.wait()
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    hold.set()
    (job_id,) = await engine.jobs(1)
    assert engine.inputs[job_id].image == bytes((200, 30, 30)) * SIZE**2


@pytest.mark.parametrize("durability", Durability)
async def test_a_job_that_is_refused_leaves_no_images(disk, monkeypatch, durability):
    """Whatever the refusal is."""
    jobs, store = disk

    def refuse(_job):
        raise QueueFull("no place")

    monkeypatch.setattr(jobs.dispatcher, "submit", refuse)
    with pytest.raises(QueueFull):
        await submitted(jobs, store, durability)
    await gone(store)


async def test_a_job_whose_row_is_not_written_leaves_no_images(disk, monkeypatch):
    """The engine may have begun with it."""
    jobs, store = disk

    async def fails(_row):
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(jobs._writer.store, "add", fails)
    with pytest.raises(StoreUnavailable):
        await submitted(jobs, store, Durability.PROMISED)
    await gone(store)


async def test_a_cancelled_job_leaves_no_images_where_nothing_is_kept(memory, engine):
    """Its memory is free again at once."""
    jobs, store = memory
    with await submitted(jobs, store, Durability.NONE) as handle:
        await engine.jobs(1)
        handle.cancel(Disconnected())
    await gone(store)


async def test_the_same_request_again_keeps_its_images_once(disk, engine):
    """By its idempotency key it gets the job that is there."""
    jobs, store = disk
    terms = {"idempotency_key": "one", "idempotency_digest": "same"}
    first = await submitted(jobs, store, Durability.PROMISED, **terms)
    again = await submitted(jobs, store, Durability.PROMISED, **terms)
    assert (again.replayed, again.stored.id) == (True, first.stored.id)
    while store.receiving_bytes:
        await STORAGE.run(int)
    assert (await store.sizes()) == {first.stored.id: len(PHOTO)}
    await engine.jobs(1)


@pytest.mark.parametrize("damage", ["removed", "changed"])
async def test_a_job_without_its_image_fails_alone(disk, engine, damage):
    """It is told why, and others go on."""
    jobs, store = disk
    blocker = await submitted(jobs, store, Durability.PROMISED, png(1))
    await engine.jobs(1)
    request, uploads = uploaded(store, PHOTO)
    assert request.image is not None
    if damage == "changed":
        request = replace(request, image=replace(request.image, digest="0" * 64))
    else:
        request = replace(request, mask=request.image)
    handle = await jobs.submit(request, "anonymous", Durability.PROMISED, Terms(uploads=uploads))
    with pytest.raises(InputLost, match="send the request again"):
        await handle.wait()
    assert (await over_at(jobs, handle.stored.id)).error_code == "input_lost"
    await engine.step()
    await blocker.wait()


async def over_at(jobs, job_id):
    """Return the last row of a job."""
    return (await jobs.get(job_id, "anonymous"))[0]


async def test_a_job_is_run_again_with_its_images_after_a_restart(tmp_path):
    """Those that are on the disk, of the jobs that are not over."""
    first = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([first], Metrics(), Config())
    folder = kept(tmp_path, dispatcher)
    async with asyncio.timeout(20), folder.opened():
        await dispatcher.start()
        handle = await submitted(folder.jobs, folder.inputs, Durability.PROMISED, mask=left_half())
        await first.jobs(1)
        await dispatcher.stop()
    second = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([second], Metrics(), Config())
    folder = kept(tmp_path, dispatcher)
    async with asyncio.timeout(20), folder.opened():
        await dispatcher.start()
        (job_id,) = await second.jobs(1)
        assert job_id == handle.stored.id
        assert second.inputs[job_id] == first_given(folder, job_id)
        await second.step()
        assert (await over(folder, job_id)).state is JobState.SUCCEEDED
        await dispatcher.stop()


def first_given(folder, job_id):
    """Return what the engine gets of a job's images on the disk."""
    live = folder.jobs.live[job_id]
    return live.job.inputs()


async def test_images_count_and_go_with_their_jobs(disk, engine, monkeypatch):
    """In the bound of what is kept; those of failed jobs go by themselves."""
    jobs, store = disk
    handles = [await submitted(jobs, store, Durability.PROMISED, png(n)) for n in range(3)]
    await engine.jobs(3)
    jobs.dispatcher.cancel(handles[0].live.job, Disconnected())
    await engine.step()
    for handle in handles[1:]:
        await handle.wait()
    writer = jobs._writer
    durable = writer.on_finished.__self__
    store._grace = writer.results._grace = -1.0
    await durable._sweep_once()
    assert set(await store.sizes()) == {handle.stored.id for handle in handles[1:]}
    monkeypatch.setattr(durable, "_config", Config(results_max_bytes=2**20))
    big = png(size=1024, noise=True)
    handle = await submitted(jobs, store, Durability.PROMISED, big)
    await engine.jobs(1)
    await engine.step()
    await handle.wait()
    assert len(big) > 2**20
    await durable._sweep_once()  # The oldest go first, and their images do not help.
    assert await store.sizes() == {}


async def test_all_jobs_of_an_owner_are_removed_with_their_images(disk, engine, tmp_path):
    """Those that run are cancelled; those of others stay."""
    jobs, store = disk
    webhook = "https://example.org/told"
    done = await submitted(jobs, store, Durability.PROMISED, mask=left_half(), webhook=webhook)
    await engine.jobs(1)
    await engine.step()
    await done.wait()
    webhooks = jobs._writer.on_finished.__self__.webhooks
    assert webhooks.pending == 1
    running = await submitted(jobs, store, Durability.PROMISED)
    other = await jobs.submit(REQUEST, "ben", Durability.PROMISED)
    await engine.jobs(2)
    assert await jobs.remove("anonymous") == 2
    assert running.live.job.error is not None
    assert (await jobs.page("anonymous", state=None, cursor=None, limit=10)).jobs == ()
    await gone(store)
    assert [path.name for path in (tmp_path / "results").iterdir()] == []
    assert engine.batch.keys() == {other.stored.id}
    await asyncio.wait([*webhooks._tasks.values(), asyncio.create_task(asyncio.sleep(0))])
    assert webhooks.pending == 0
    assert await jobs.remove("anonymous") == 0
    jobs.dispatcher.drain()
    with pytest.raises(ShuttingDown):
        await jobs.remove("anonymous")


async def test_jobs_in_memory_are_removed_too(memory, engine):
    """They are cancelled."""
    jobs, store = memory
    with await submitted(jobs, store, Durability.NONE) as handle:
        await engine.jobs(1)
        assert await jobs.remove("anonymous") == 1
        assert handle.live.job.error is not None
    await gone(store)


async def test_masks_are_read_by_their_own_digest(disk):
    """The bytes of both are those that were sent."""
    jobs, store = disk
    mask = left_half()
    handle = await submitted(jobs, store, Durability.PROMISED, mask=mask)
    assert (store.read(handle.stored.id, IMAGE), store.read(handle.stored.id, MASK)) == (
        PHOTO,
        mask,
    )
