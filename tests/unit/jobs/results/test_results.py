"""What every result store keeps of finished images, and for how long."""

import random

import pytest

from service.errors import JobExpired, NotFound, StorageFull
from service.images.encoded import Encoded
from service.jobs.job import new_id
from tests.support.jobs.kept_jobs import png_of
from tests.support.jobs.memory_results import MemoryResults

IMAGE = Encoded(data=png_of(8, 8, b"one" * 100), media_type="image/png")
OTHER = Encoded(data=png_of(16, 8, b"two" * 100), media_type="image/png")


def files(results):
    """Return the names of the files, or what memory has in their place."""
    if isinstance(results, MemoryResults):
        return sorted(f"{job_id}.zip" for job_id in results._kept)
    return sorted(path.name for path in results.folder.iterdir())


async def test_images_come_back_as_they_were(results):
    """Each with its media type, and what was said beside them."""
    job_id = new_id()
    size = await results.write(job_id, [IMAGE, OTHER], {"seed": 7, "prompt": "ä boat"})
    assert await results.read(job_id) == IMAGE
    assert await results.read(job_id, 1) == OTHER
    assert await results.metadata(job_id) == {"seed": 7, "prompt": "ä boat"}
    assert files(results) == [f"{job_id}.zip"]
    assert await results.used_bytes() == size > len(IMAGE.data) + len(OTHER.data)
    with pytest.raises(NotFound, match="2 images"):
        await results.read(job_id, 2)
    with pytest.raises(NotFound):
        await results.read(job_id, -1)


async def test_a_job_that_ran_twice_keeps_its_last_images(results):
    """A crash between the images and the row makes it run again."""
    job_id = new_id()
    await results.write(job_id, [IMAGE, IMAGE], {"run": 1})
    await results.write(job_id, [OTHER], {"run": 2})
    assert (await results.read(job_id), await results.metadata(job_id)) == (OTHER, {"run": 2})
    assert files(results) == [f"{job_id}.zip"]


async def test_what_is_deleted_is_gone(results):
    """Asking for it says so."""
    job_id = new_id()
    await results.write(job_id, [IMAGE], {})
    assert await results.delete(job_id)
    assert not await results.delete(job_id)
    with pytest.raises(JobExpired):
        await results.read(job_id)


@pytest.mark.parametrize(
    "job_id",
    ["", ".", "..", "../" * 9 + "etc/passwd", "a" * 31, "A" * 32, "a" * 33, "a" * 32 + "\n",
     "/" + "a" * 31, "a" * 31 + "\0", "\u0660" * 32],
)  # fmt: skip
async def test_no_id_leads_out_of_the_folder(results, job_id):
    """Only what the service gives out is an id."""
    for call in (results.read, results.delete, results.metadata):
        with pytest.raises(NotFound):
            await call(job_id)
    with pytest.raises(NotFound):
        await results.write(job_id, [IMAGE], {})
    assert files(results) == []


async def test_the_old_go_and_then_the_oldest_of_too_much(results, clock):
    """First by age, then by size, never one within the grace period."""
    ids = []
    for clock.now in (1_000.0, 1_100.0, 1_200.0, 1_300.0):
        ids.append(new_id())
        size = await results.write(ids[-1], [IMAGE], {})
    clock.now = 1_305.0
    assert await results.sweep(1_000.0, 10 * size) == []
    assert await results.sweep(250.0, 10 * size) == [ids[0]]
    assert await results.sweep(250.0, 2 * size) == [ids[1]]
    assert await results.sweep(0.0, 0) == [ids[2]]
    assert files(results) == [f"{ids[3]}.zip"]
    clock.now = 1_310.0
    assert await results.sweep(1_000.0, 0) == [ids[3]]


@pytest.mark.parametrize("seed", range(10))
async def test_any_sweep_keeps_the_youngest_that_fit(results, clock, seed):
    """What stays is a run of the youngest: nothing stays that is older than what went."""
    rng = random.Random(seed)  # noqa: S311 - test values
    ages = {}
    for _ in range(12):
        job_id = new_id()
        clock.now = 1_000.0 + rng.randrange(1_000)
        await results.write(job_id, [Encoded(data=bytes(rng.randrange(500)), media_type="a/b")], {})
        ages[job_id] = 2_000.0 - clock.now
    clock.now, most = 2_000.0, rng.randrange(6_000)
    removed = await results.sweep(700.0, most)
    left = set(ages) - set(removed)
    assert min((ages[one] for one in removed), default=1e9) >= max(
        (ages[one] for one in left), default=0
    )
    assert all(ages[one] <= 700 for one in left)
    assert await results.used_bytes() <= most or all(ages[one] < 10 for one in left)
    assert removed == sorted(removed, key=lambda one: (-ages[one], one))


async def test_a_clock_that_was_set_back_removes_nothing_young(results, clock):
    """Files from the future are the youngest there are."""
    job_id = new_id()
    await results.write(job_id, [IMAGE], {})
    clock.now = 10.0
    assert await results.sweep(0.0, 0) == []
    assert await results.read(job_id) == IMAGE


async def test_images_without_a_job_go_after_the_grace_period(results, clock):
    """A job may have ended since the ids were read."""
    known, unknown, young = new_id(), new_id(), new_id()
    for job_id in (known, unknown):
        await results.write(job_id, [IMAGE], {})
    clock.now += 60
    await results.write(young, [IMAGE], {})
    await results.open()
    assert await results.clean({known}) == [unknown]
    assert files(results) == sorted([f"{known}.zip", f"{young}.zip"])


async def test_bytes_that_go_are_counted(results):
    """Those of deleted images and of swept ones."""
    ids = sorted(new_id() for _ in range(2))
    sizes = [await results.write(job_id, [IMAGE], {}) for job_id in ids]
    assert await results.used_bytes() == sum(sizes)
    await results.delete(ids[0])
    assert (results.removed_bytes, results.damaged) == (sizes[0], 0)


async def test_memory_has_an_end(clock):
    """What does not fit is refused whole."""
    results = MemoryResults(room=len(IMAGE.data) + 10, clock=clock)
    await results.write(new_id(), [IMAGE], {})
    assert await results.room_bytes() == 8
    with pytest.raises(StorageFull, match="make room"):
        await results.write(new_id(), [IMAGE], {})
    assert len(files(results)) == 1


async def test_input_images_count_and_make_room_with_their_jobs(results, clock):
    """The oldest jobs go, until what is left of both fits."""
    jobs = [new_id() for _ in range(3)]
    for job in jobs:
        await results.write(job, [IMAGE], {})
        clock.now += 1
    each = await results.used_bytes() // 3
    clock.now += 100
    inputs = {jobs[0]: 500, jobs[1]: 2000, new_id(): 300}  # One is of a job that runs.
    assert await results.sweep(1e9, 3 * each + 2800, inputs) == []
    assert await results.sweep(1e9, 3 * each + 2799, inputs) == [jobs[0]]
    assert await results.sweep(1e9, each + 300, {jobs[1]: 2000, new_id(): 300}) == [jobs[1]]
