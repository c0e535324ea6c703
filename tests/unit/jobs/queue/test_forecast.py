"""Where a waiting job stands, and when it will start."""

import random
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from service.core.spec import GenerationSpec
from service.jobs.job import Job
from service.jobs.queue.estimate import Estimate
from service.jobs.queue.forecast import (
    AGAIN_SECONDS,
    LARGE,
    Position,
    QueueForecast,
    line_up,
)
from service.jobs.queue.queue import JobQueue

PIXELS = 512 * 512


def job(steps: int = 20, key: str = "a", num_images: int = 1) -> Job:
    request = GenerationSpec(prompt="a cat", steps=steps, num_images=num_images)
    return Job(request=request, owner=key)


@pytest.fixture
def estimate() -> Estimate:
    """Teach an estimate a step of one second for one 512x512 image that decodes in no time."""
    learned = Estimate()
    learned.observe(pixels=PIXELS, seconds=1)
    learned.observe_rest(pixels=PIXELS, seconds=0)
    return learned


@dataclass(kw_only=True)
class Slot:
    """An engine slot as far as the forecast reads it."""

    estimate: Estimate
    batch_limit: int = 1
    delay: float = 0.0
    closed: bool = False
    jobs: dict[str, Job] = field(default_factory=dict)

    loads: dict[str, float] = field(default_factory=dict)
    """By model, the seconds that it takes to load."""

    def switch_seconds(self, job: Job) -> float:
        return self.loads.get(job.model, 0.0)

    def runs(self, *jobs: Job) -> "Slot":
        self.jobs = {each.id: each for each in jobs}
        return self


def forecast(estimate: Estimate, *waiting: Job) -> tuple[JobQueue, Slot, QueueForecast]:
    queue, slot = JobQueue(), Slot(estimate=estimate)
    for each in waiting:
        queue.put_nowait(each)
    return queue, slot, QueueForecast(queue, [slot])


def ahead(waiting: list[Job], running: list[Job], *, batch_limit: int, rest: float) -> list[float]:
    """Return the pixel steps before each start in one slot."""
    learned = Estimate()
    learned.observe(pixels=PIXELS, seconds=1)
    learned.observe_rest(pixels=PIXELS, seconds=rest)
    slot = Slot(estimate=learned, batch_limit=batch_limit).runs(*running)
    return [done - learned.done for _, done in line_up(waiting, [slot])]


async def test_jobs_are_numbered_as_they_would_be_served(estimate):
    """The first number is 1, and a short job stands before a long one."""
    long, short = job(50), job(4)
    _, slot, line = forecast(estimate, long, short)
    slot.runs(job(10))
    assert line.position(short) == Position(number=1, start_seconds=10)
    assert line.position(long) is not None


async def test_a_job_waits_for_all_before_it(estimate):
    """In a batch of one, the start is the end of the job before."""
    first, second = job(20), job(20)
    _, slot, line = forecast(estimate, first, second)
    slot.runs(job(10))
    assert line.starts() == [10, 30]


async def test_a_job_that_does_not_wait_has_no_position(estimate):
    """A running or unknown job is told nothing."""
    queue, slot, line = forecast(estimate, job())
    running = queue.get_nowait()
    slot.runs(running)
    assert line.position(running) is None
    assert line.position(job()) is None


async def test_steps_done_bring_the_start_nearer(estimate):
    """Between two changes of the line the start moves with the steps of the engine."""
    waiting, running = job(), job(10)
    _, slot, line = forecast(estimate, waiting)
    slot.runs(running)
    assert line.starts() == [10]
    estimate.observe(pixels=4 * PIXELS, seconds=4)
    running.steps_done = 4
    assert line.starts() == [6]
    estimate.observe(pixels=40 * PIXELS, seconds=40)
    assert line.starts() == [0]


async def test_a_newcomer_that_goes_before_is_seen(estimate):
    """Positions follow every change of the queue."""
    waiting, running = job(20), job(10)
    queue, slot, line = forecast(estimate, waiting)
    slot.runs(running)
    assert line.position(waiting) == Position(number=1, start_seconds=10)
    queue.put_nowait(job(4))
    assert line.position(waiting) == Position(number=2, start_seconds=14)


async def test_an_engine_that_loads_delays_everyone(estimate):
    """The seconds until the engine is ready come on top."""
    waiting = job()
    _, slot, line = forecast(estimate, waiting)
    slot.delay = 7
    assert line.position(waiting) == Position(number=1, start_seconds=7)


async def test_how_much_newcomers_delay_a_key_is_learned(estimate):
    """A key whose jobs start twice as late as by the line is told so; others are not."""
    queue, slot, line = forecast(estimate)
    for _ in range(100):
        late = job(key="flood")
        queue.put_nowait(late)
        slot.runs(job(10))
        line.accepted(late, 0)
        queue.get_nowait()
        line.started(late, 20)
    waiting = [job(key="flood"), job(key="light")]
    for each in waiting:
        queue.put_nowait(each)
    assert line.starts(owner="flood")[0] == pytest.approx(20, rel=0.01)
    assert line.starts(owner="light")[0] == pytest.approx(10)


async def test_a_job_that_left_teaches_nothing(estimate):
    """A cancelled job is forgotten, and one that was restored has no expectation."""
    waiting = job()
    _, slot, line = forecast(estimate, waiting)
    slot.runs(job(10))
    line.accepted(waiting, 0)
    line.left(waiting)
    line.started(waiting, 40)
    assert line.starts(owner="a") == [10]


async def test_a_batch_shares_the_engine():
    """Two images of ten steps leave a batch of two after twenty image steps."""
    running = [job(10), job(10)]
    steps = ahead([job(), job(), job()], running, batch_limit=2, rest=0)
    assert steps == [20 * PIXELS, 20 * PIXELS, 60 * PIXELS]


async def test_a_short_job_leaves_a_batch_early():
    """A place gets free with the first of the batch, the other then has one neighbour more."""
    steps = ahead([job(4), job(4)], [job(50), job(4)], batch_limit=2, rest=1)
    assert steps == [10 * PIXELS, 20 * PIXELS]


async def test_room_is_counted_in_images():
    """The next job enters when fewer images than the limit are left, however many it has."""
    steps = ahead([job(num_images=4), job()], [job(10)], batch_limit=2, rest=0)
    assert steps == [0, (10 + 4 * 20) * PIXELS]


@pytest.mark.parametrize("seed", range(10))
async def test_starts_never_go_back(seed):
    """Whoever is served later starts later or at the same time."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    waiting = [job(chance.randint(1, 50), num_images=chance.randint(1, 4)) for _ in range(100)]
    steps = ahead(waiting, [job(), job(5)], batch_limit=3, rest=2.5)
    assert steps == sorted(steps)


async def test_one_late_start_moves_the_expectation_by_a_tenth(estimate):
    """It counts from the moment at which the job was accepted, and from its place in the line."""
    queue, slot, line = forecast(estimate, job(10, key="late"))
    late = job(20, key="late")
    queue.put_nowait(late)
    slot.runs(job(10))
    line.accepted(late, 1000)  # Ten steps of the running job, ten of the first.
    line.started(late, 1040)
    assert line.starts(owner="late")[0] == pytest.approx(11)


async def test_no_key_is_told_more_than_four_times_the_line(estimate):
    """One that was kept waiting for an hour by a broken engine is not sent away for hours."""
    queue, slot, line = forecast(estimate)
    for _ in range(100):
        late = job(key="late")
        queue.put_nowait(late)
        slot.runs(job(10))
        line.accepted(late, 0)
        queue.get_nowait()
        line.started(late, 3600)
    queue.put_nowait(job(key="late"))
    assert line.starts(owner="late")[0] == pytest.approx(40, rel=0.01)


async def test_an_early_start_teaches_nothing(estimate):
    """The line is the least that a key is told."""
    queue, slot, line = forecast(estimate)
    for expected in (10, 10):
        early = job(key="early")
        queue.put_nowait(early)
        slot.runs(job(expected))
        line.accepted(early, 0)
        queue.get_nowait()
        line.started(early, 1)
    queue.put_nowait(job(key="early"))
    slot.runs(job(10))
    assert line.starts(owner="early") == [10]


async def test_sub_prompts_take_time_and_room(estimate):
    """An image of a place and a half leaves no room for one in a batch of two."""
    composed = GenerationSpec(prompt="a AND b", prompt_syntax="a1111", steps=10)
    slot = Slot(estimate=estimate, batch_limit=2).runs(Job(request=composed))
    (start,) = line_up([job()], [slot])
    assert start[1] - estimate.done == 1.5 * 10 * PIXELS


async def test_a_large_line_is_worked_out_at_times(estimate, monkeypatch):
    """Until then a job is expected when the one was that had the place of its turn."""
    now = 100.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("service.jobs.queue.forecast.time", clock)
    jobs = [job(10) for _ in range(LARGE)]
    queue, slot, line = forecast(estimate, *jobs)
    slot.runs(job(10))
    assert line.position(jobs[1]) == Position(number=2, start_seconds=20)
    queue.take(jobs[0])
    queue.put_nowait(short := job(1))
    assert line.position(jobs[0]) is None
    assert line.position(jobs[1]) == Position(number=2, start_seconds=20)
    assert line.position(short) == Position(number=2, start_seconds=20)
    assert list(line.waiting) == jobs
    assert line.starts() == [10.0 * number for number in range(1, LARGE + 1)]
    now += AGAIN_SECONDS
    assert line.position(jobs[1]) == Position(number=2, start_seconds=11)
    assert line.position(short) == Position(number=1, start_seconds=10)


@pytest.mark.parametrize("seed", range(10))
async def test_a_job_that_came_to_a_large_line_is_told_its_place(estimate, seed, monkeypatch):
    """Whatever its key and length, it is the place that it has when the line is worked out anew."""
    now = 100.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("service.jobs.queue.forecast.time", clock)
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret

    def any_job() -> Job:
        return job(chance.choice((4, 20, 50)), key=chance.choice("abcde"))

    queue, _, line = forecast(estimate, *(any_job() for _ in range(LARGE)))
    queue.put_back(queue.get_nowait())
    line.starts()
    queue.put_nowait(newcomer := any_job())
    told = line.position(newcomer)
    now += AGAIN_SECONDS
    assert told is not None
    assert told.number == getattr(line.position(newcomer), "number", None)


async def test_a_job_is_expected_as_soon_as_those_of_its_size_began(estimate):
    """Short jobs that join full batches are told so; long ones of the same key are not."""
    queue, slot, line = forecast(estimate)
    slot.runs(job(10))
    for _ in range(100):
        queue.put_nowait(short := job(4))
        line.accepted(short, 0)
        queue.take(short)
        line.started(short, 2)
    queue.put_nowait(short := job(4))
    told = line.position(short)
    queue.discard(short)
    queue.put_nowait(long := job(50))
    assert told is not None
    assert told.start_seconds == pytest.approx(2, rel=0.01)
    assert line.position(long) == Position(number=1, start_seconds=10)
    assert line.starts(owner="a") == [10]


async def test_a_wait_for_the_end_of_a_step_teaches_little():
    """One job that is expected at once and waits for a step does not make its key expect more."""
    fast = Estimate()
    fast.observe(pixels=PIXELS, seconds=0.01)
    fast.observe_rest(pixels=PIXELS, seconds=0)
    queue, slot, line = forecast(fast)
    slot.runs(job(1))
    for _ in range(10):
        queue.put_nowait(soon := job())
        line.accepted(soon, 0)
        queue.take(soon)
        line.started(soon, 1)
    queue.put_nowait(job())
    slot.runs(job(10))
    assert line.starts(owner="a")[0] == pytest.approx(0.1, rel=0.05)
