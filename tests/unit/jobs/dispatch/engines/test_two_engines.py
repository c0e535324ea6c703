"""Two engines behind one queue, while both work."""

import asyncio
from dataclasses import replace

import pytest

from service.config.table import Config
from service.core.events import (
    BatchCalibrated,
    JobCancelled,
    JobFailed,
    JobFinished,
    Previewed,
    Stepped,
)
from service.core.spec import GenerationSpec
from service.core.stage import StageTimes
from service.errors import Cancelled, Disconnected, QueueFull, RequestTimedOut, ShuttingDown
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable.live_job import Terms
from service.jobs.job import Job, JobState
from service.jobs.observer import Observer
from service.telemetry.metrics import Metrics
from tests.support.jobs.kept_jobs import REQUEST, accepted, kept
from tests.support.jobs.scripted_engine import (
    ScriptedEngine,
    job,
    settle,
    stepped,
    submitted,
    value,
)
from tests.support.simulation.fake_engine import FakeEngine


async def test_a_job_goes_to_the_engine_that_has_room(pair, engines):
    """It is bound to a slot when one has room, not when it is accepted."""
    first, second = engines
    a, b, c, d = jobs = [job() for _ in range(4)]
    await submitted(pair, *jobs)
    assert (first.started, second.started, pair.running, pair.depth) == ([a.id], [b.id], 2, 2)
    await second.finishes(b)
    await second.finishes(c)
    assert (first.started, second.started) == ([a.id], [b.id, c.id, d.id])
    assert [each.engine for each in jobs] == ["0", "1", "1", "1"]


async def test_the_engine_with_less_work_left_is_given_the_next_job(engines, metrics):
    """A GPU of its own is better than a place in a batch."""
    pair = Dispatcher(engines, metrics, Config(max_concurrent_requests=3))
    await pair.start()
    for engine in engines:
        await engine.ready()
    await submitted(pair, job(steps=50), job(steps=10), job(steps=10), job(steps=50))
    assert [len(engine.started) for engine in engines] == [1, 3]
    await pair.stop()


async def test_an_engine_that_loads_is_given_nothing(engines, metrics):
    """Until it is ready; the service is ready with the first one."""
    first, second = engines
    pair = Dispatcher(engines, metrics, Config(max_concurrent_requests=1))
    await pair.start()
    found = [pair.admission.ready]
    await second.ready()
    assert [*found, pair.admission.ready] == [False, True]
    a, b = job(), job()
    await submitted(pair, a, b)
    assert (first.started, second.started) == ([], [a.id])
    await first.ready()
    assert first.started == [b.id]
    await pair.stop()


async def test_keys_take_turns_over_all_engines(engines, metrics):
    """Fairness is a matter of the one queue: a key gains nothing by the number of engines."""
    pair = Dispatcher(
        engines, metrics, Config(max_concurrent_requests=1), weights={"flood": 1, "light": 1}
    )
    await pair.start()
    for engine in engines:
        await engine.ready()
    flood = [Job(request=GenerationSpec(prompt="a cat"), owner="flood") for _ in range(6)]
    light = [Job(request=GenerationSpec(prompt="a cat"), owner="light") for _ in range(2)]
    await submitted(pair, *flood, *light)
    served = []
    for number in range(6):
        engine = engines[number % 2]
        running = next(each for each in [*flood, *light] if each.id == engine.started[-1])
        served.append(running.owner)
        await engine.finishes(running)
    assert served[:2] == ["flood", "flood"]
    assert sorted(served[2:]) == ["flood", "flood", "light", "light"]
    await pair.stop()


async def test_starts_count_the_places_of_all_engines(pair, engines):
    """Each waiting job is expected in the slot that has room first."""
    for engine in engines:
        engine.tell(Stepped(pixels=512**2, seconds=1.0, batch_size=1))
    await submitted(pair, job(steps=10), job(steps=20))
    waiting = [job(steps=10), job(steps=10), job(steps=10)]
    await submitted(pair, *waiting)
    places = [pair.position(each) for each in waiting]
    assert [place.number for place in places] == [1, 2, 3]
    # With three steps for each decoding: the first ends after 13, the second after 23 seconds.
    assert [place.start_seconds for place in places] == pytest.approx([13, 23, 26])


async def test_a_faster_engine_is_expected_to_take_more(pair, engines):
    """Each slot has an estimate of its own."""
    first, second = engines
    first.tell(Stepped(pixels=512**2, seconds=4.0, batch_size=1))
    second.tell(Stepped(pixels=512**2, steps=3, seconds=3.0, batch_size=1))
    await submitted(pair, job(steps=10), job(steps=10))
    waiting = [job(steps=10) for _ in range(4)]
    await submitted(pair, *waiting)
    starts = [pair.position(each).start_seconds for each in waiting]
    assert starts == pytest.approx([13, 26, 39, 52])


async def test_a_refused_client_waits_half_as_long_for_two_engines():
    """Retry-After counts the places of both, and of three a third."""
    told = []
    for count in (1, 2, 3):
        engines = [ScriptedEngine() for _ in range(count)]
        config = Config(max_concurrent_requests=1, queue_size=4)
        dispatcher = Dispatcher(engines, Metrics(), config)
        await dispatcher.start()
        for engine in engines:
            await engine.ready()
            engine.tell(Stepped(pixels=512**2, seconds=10.0, batch_size=1))
        await submitted(dispatcher, *(job() for _ in range(count + 4)))
        refused = []
        for number in range(4):
            with pytest.raises(QueueFull) as full:
                dispatcher.submit(job(seed=number, steps=19 - number))
            refused.append(full.value.retry_after)
        told.append(refused)
        await dispatcher.stop()
    assert told == [[230, 460, 690, 920], [230, 230, 460, 460], [230, 230, 230, 460]]


@pytest.mark.parametrize("error", [Cancelled(), Disconnected(), RequestTimedOut()])
async def test_a_cancel_reaches_the_engine_that_has_the_job(pair, engines, error):
    """And no other; the next job takes its place there."""
    first, second = engines
    a, b, c = jobs = [job() for _ in range(3)]
    await submitted(pair, *jobs)
    pair.cancel(b, error)
    await settle()
    assert (first.cancelled, second.cancelled) == ([], [b.id])
    assert (a.state, b.error, second.started[-1]) == (JobState.RUNNING, error, c.id)


async def test_a_job_past_its_deadline_leaves_its_engine(tmp_path):
    """Whichever it is; the others are not touched."""
    engines = [FakeEngine(step_seconds=None) for _ in range(2)]
    pair = Dispatcher(engines, Metrics(), Config(max_concurrent_requests=1))
    long = replace(REQUEST, steps=9)
    folder = kept(tmp_path, pair)
    async with asyncio.timeout(20), folder.opened():
        await pair.start()
        jobs = [await accepted(folder, long)]
        await engines[0].jobs(1)
        jobs.append(await accepted(folder, long, Terms(timeout_seconds=0.01)))
        with pytest.raises(RequestTimedOut):
            await jobs[1].wait()
        assert (jobs[0].state, jobs[1].engine) == (JobState.RUNNING, "1")
        assert ([*engines[0].batch], [*engines[1].batch]) == ([jobs[0].id], [])
        await pair.stop()


async def test_an_engine_is_not_heard_about_jobs_of_another(pair, engines, metrics):
    """Whatever it says of them: their images come from the engine that runs them."""
    _, second = engines
    a, b = job(), job()
    await submitted(pair, a, b)
    times = StageTimes(denoise=7.0)
    for event in (
        stepped(a, 9, seconds=5.0),
        JobFinished(job_id=a.id, epoch=1, images=(), times=times),
        JobFailed(
            job_id=a.id, epoch=1, code="generation_failed", detail="It went wrong.", times=times
        ),
        JobCancelled(job_id=a.id, epoch=1, times=times),
    ):
        second.tell(event)
        await settle()
    assert (a.state, a.steps_done, a.gpu_seconds) == (JobState.RUNNING, 0, 0.0)
    assert (pair.running, value(metrics, "sd_images_total")) == (2, 0)
    assert value(metrics, "sd_gpu_seconds_total", use="useful") == 0


async def test_calibration_bounds_the_batch_of_its_own_engine(engines, metrics):
    """What one GPU gains nothing by may be worth it on another."""
    pair = Dispatcher(engines, metrics, Config(max_concurrent_requests=2))
    await pair.start()
    for engine in engines:
        await engine.ready()
    engines[1].tell(BatchCalibrated(batch=1, size=512, seconds={1: 1.0, 2: 2.0}))
    await submitted(pair, *(job() for _ in range(4)))
    assert [len(engine.started) for engine in engines] == [2, 1]
    assert value(metrics, "sd_batch_calibrated", engine="1") == 1
    assert value(metrics, "sd_batch_limit", engine="1") == 2
    await pair.stop()


async def test_a_short_job_joins_a_full_batch_only_where_no_engine_has_room(pair, engines):
    """A place of its own is better, and is about to be taken."""
    first, second = engines
    await submitted(pair, job(steps=50))
    short, other = job(steps=4), job(steps=4)
    pair.submit(short)
    await settle()
    assert second.started == [short.id]
    await submitted(pair, other)
    assert first.started[1:] == [other.id]


async def test_each_engine_counts_for_itself(pair, engines, metrics):
    """Its steps, jobs, images and time, and its state."""
    a, b = job(), job()
    await submitted(pair, a, b)
    engines[1].tell(stepped(b, 1, seconds=0.5))
    names = ("sd_jobs_running", "sd_steps_total", "sd_batch_live_images", "sd_images_total")
    assert [value(metrics, name, engine="0") for name in names] == [1, 0, 0, 0]
    assert [value(metrics, name, engine="1") for name in names] == [1, 1, 1, 0]
    engines[1].tell(JobFinished(job_id=b.id, epoch=1, images=(), times=StageTimes(denoise=2.0)))
    await settle()
    used = [
        value(metrics, "sd_gpu_seconds_total", engine=name, use="useful") for name in ("0", "1")
    ]
    running = [value(metrics, "sd_jobs_running", engine=name) for name in ("0", "1")]
    assert (used, running) == ([0.0, 2.0], [1, 0])


class Seen(Observer):
    """Remembers previews."""

    def __init__(self) -> None:
        self.previews: list[Previewed] = []

    def previewed(self, _job: Job, preview: Previewed) -> None:
        self.previews.append(preview)


async def test_previews_are_asked_of_the_engine_that_has_the_job(pair, engines):
    """And taken from that one only; a wish that ends is taken back everywhere."""
    first, second = engines
    pair.observer = seen = Seen()
    a, b = job(), job()
    await submitted(pair, a, b)
    pair.preview(b, wanted=True)
    assert (first.watched, second.watched) == (set(), {b.id})
    shown = Previewed(job_id=b.id, epoch=1, step=1, width=1, height=1, pixels=b"...")
    first.tell(shown)
    assert seen.previews == []
    second.tell(shown)
    assert seen.previews == [shown]
    await second.dies()
    await first.finishes(a)
    assert b.engine == "0"
    pair.preview(b, wanted=True)
    pair.preview(b, wanted=False)
    assert (first.watched, second.watched) == (set(), {b.id})  # Which is a new process by now.


async def test_draining_waits_for_all_engines(pair, engines):
    """What is accepted ends on whichever it runs, and nothing new is taken."""
    first, second = engines
    a, b, c = jobs = [job() for _ in range(3)]
    await submitted(pair, *jobs)
    pair.drain()
    with pytest.raises(ShuttingDown):
        pair.submit(job())
    await second.finishes(b)
    await second.finishes(c)
    await first.finishes(a)
    assert [each.state for each in jobs] == [JobState.SUCCEEDED] * 3


async def test_stopping_ends_the_jobs_of_all_engines(pair, engines):
    """And the engines."""
    jobs = [job() for _ in range(3)]
    await submitted(pair, *jobs)
    await pair.stop()
    assert [each.state for each in jobs] == [JobState.CANCELLED] * 3
    assert [engine.state for engine in engines] == ["stopped", "stopped"]
