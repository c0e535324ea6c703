"""Where a waiting job stands, and when it will start."""

import random

import pytest

from service.diffusion.generation import GenerationRequest
from service.jobs.estimate import Estimate
from service.jobs.job import Job
from service.jobs.position import Outlook, Position, work_ahead
from service.jobs.queue import JobQueue

PIXELS = 512 * 512


def job(steps: int = 20, key: str = "a", num_images: int = 1) -> Job:
    request = GenerationRequest(prompt="a cat", steps=steps, num_images=num_images)
    return Job(request=request, key=key)


@pytest.fixture
def estimate() -> Estimate:
    """Teach an estimate a step of one second for one 512x512 picture that decodes in no time."""
    learned = Estimate()
    learned.observe(pixels=PIXELS, seconds=1)
    learned.observe_rest(pixels=PIXELS, seconds=0)
    return learned


def outlook(estimate: Estimate, *waiting: Job, batch_limit: int = 1) -> tuple[JobQueue, Outlook]:
    queue = JobQueue()
    for each in waiting:
        queue.put_nowait(each)
    return queue, Outlook(queue, estimate, batch_limit=batch_limit)


async def test_jobs_are_numbered_as_they_would_be_served(estimate):
    """The first number is 1, and a short job stands before a long one."""
    long, short = job(50), job(4)
    _, line = outlook(estimate, long, short)
    assert line.position(short, [job(10)]) == Position(number=1, start_seconds=10)
    assert line.position(long, [job(10)]) is not None


async def test_a_job_waits_for_all_before_it(estimate):
    """In a batch of one, the start is the end of the job before."""
    first, second = job(20), job(20)
    _, line = outlook(estimate, first, second)
    assert line.starts([job(10)]) == [10, 30]


async def test_a_job_that_does_not_wait_has_no_position(estimate):
    """A running or unknown job is told nothing."""
    queue, line = outlook(estimate, job())
    running = queue.get_nowait()
    assert line.position(running, [running]) is None
    assert line.position(job(), [running]) is None


async def test_steps_done_bring_the_start_nearer(estimate):
    """Between two changes of the line the start moves with the steps of the engine."""
    waiting, running = job(), job(10)
    _, line = outlook(estimate, waiting)
    assert line.starts([running]) == [10]
    estimate.observe(pixels=4 * PIXELS, seconds=4)
    running.steps_done = 4
    assert line.starts([running]) == [6]
    estimate.observe(pixels=40 * PIXELS, seconds=40)
    assert line.starts([running]) == [0]


async def test_a_newcomer_that_goes_before_is_seen(estimate):
    """Positions follow every change of the queue."""
    waiting, running = job(20), job(10)
    queue, line = outlook(estimate, waiting)
    assert line.position(waiting, [running]) == Position(number=1, start_seconds=10)
    queue.put_nowait(job(4))
    assert line.position(waiting, [running]) == Position(number=2, start_seconds=14)


async def test_an_engine_that_loads_delays_everyone(estimate):
    """The seconds until the engine is ready come on top."""
    waiting = job()
    _, line = outlook(estimate, waiting)
    assert line.position(waiting, [], delay=7) == Position(number=1, start_seconds=7)


async def test_how_much_newcomers_delay_a_key_is_learned(estimate):
    """A key whose jobs start twice as late as by the line is told so; others are not."""
    queue, line = outlook(estimate)
    for _ in range(100):
        late = job(key="flood")
        queue.put_nowait(late)
        line.accepted(late, [job(10)], 0)
        queue.get_nowait()
        line.started(late, 20)
    waiting = [job(key="flood"), job(key="light")]
    for each in waiting:
        queue.put_nowait(each)
    assert line.starts([job(10)], key="flood")[0] == pytest.approx(20, rel=0.01)
    assert line.starts([job(10)], key="light")[0] == pytest.approx(10)


async def test_a_job_that_left_teaches_nothing(estimate):
    """A cancelled job is forgotten, and one that was restored has no expectation."""
    waiting = job()
    _, line = outlook(estimate, waiting)
    line.accepted(waiting, [job(10)], 0)
    line.left(waiting)
    line.started(waiting, 40)
    assert line.starts([job(10)], key="a") == [10]


async def test_a_batch_shares_the_engine():
    """Two pictures of ten steps leave a batch of two after twenty picture steps."""
    running = [job(10), job(10)]
    ahead = work_ahead([job(), job(), job()], running, batch_limit=2, rest=0)
    assert ahead == [20 * PIXELS, 20 * PIXELS, 60 * PIXELS]


async def test_a_short_job_leaves_a_batch_early():
    """A place gets free with the first of the batch, the other then has one neighbour more."""
    ahead = work_ahead([job(4), job(4)], [job(50), job(4)], batch_limit=2, rest=1)
    assert ahead == [10 * PIXELS, 20 * PIXELS]


async def test_room_is_counted_in_pictures():
    """The next job enters when fewer pictures than the limit are left, however many it has."""
    ahead = work_ahead([job(num_images=4), job()], [job(10)], batch_limit=2, rest=0)
    assert ahead == [0, (10 + 4 * 20) * PIXELS]


@pytest.mark.parametrize("seed", range(10))
async def test_starts_never_go_back(seed):
    """Whoever is served later starts later or at the same time."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    waiting = [job(chance.randint(1, 50), num_images=chance.randint(1, 4)) for _ in range(100)]
    ahead = work_ahead(waiting, [job(), job(5)], batch_limit=3, rest=2.5)
    assert ahead == sorted(ahead)
