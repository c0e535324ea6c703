"""Events on their way from a host: when they are sent, what is merged, and what is kept."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from service.core.capacity import Capacity
from service.core.events import (
    MOST_STEPS,
    AdaptersChanged,
    BatchCalibrated,
    JobCancelled,
    JobFailed,
    JobFinished,
    ModelLoaded,
    ModelUnloaded,
    OutOfMemoryHit,
    Previewed,
    Stepped,
    UnloadReason,
)
from service.core.image import RawImage
from service.core.stage import Stage
from service.engine.channel import written
from service.engine.protocol import EngineExited, EngineReady, Held
from service.engine.ray import outbox
from service.engine.ray.messages import REMOTE_EVENTS
from service.engine.ray.outbox import CALM_SECONDS, PULSE_SECONDS, WATCHED_SECONDS, Outbox
from tests.support.simulation.clock import VirtualLoop
from tests.unit.engine.process.children import MODEL

READY = EngineReady(model=MODEL)
EXITED = EngineExited(exit_code=-9, restarts=1)
FAILED = JobFailed(job_id="a", epoch=1, code="generation_failed", detail="no idea")
OUT_OF_MEMORY = OutOfMemoryHit(stage=Stage.DENOISE, batch_size=1)


def step(done: int, *jobs: str, epoch: int = 1, size: int = 64, seconds: float = 0.25) -> Stepped:
    """Return a step of these jobs, each with one image."""
    jobs = jobs or ("a",)
    return Stepped(
        progress=dict.fromkeys(jobs, done),
        batch_size=len(jobs),
        pixels=size * size * len(jobs),
        seconds=seconds,
        shares=dict.fromkeys(jobs, seconds / len(jobs)),
        epochs=dict.fromkeys(jobs, epoch),
    )


def preview(done: int, job: str = "a") -> Previewed:
    return Previewed(job_id=job, epoch=1, step=done, width=1, height=1, pixels=b"abc")


def finished(job: str, size: int = 0) -> JobFinished:
    image = RawImage(width=8, height=8, pixels=bytes(size), seed=1)
    return JobFinished(job_id=job, epoch=1, images=(image,))


class Reader:
    """Takes batches for as long as the outbox gives some, with the time of each."""

    def __init__(self, loop: VirtualLoop, box: Outbox) -> None:
        self.loop, self.box = loop, box
        self.batches: list[list[Any]] = []
        self.times: list[float] = []
        self.reading = loop.create_task(self._read())

    async def _read(self) -> None:
        number = self.box.open()
        while (batch := await self.box.take(number)) is not None:
            self.batches.append([REMOTE_EVENTS.read(each) for each in batch])
            self.times.append(self.loop.now)

    @property
    def events(self) -> list[Any]:
        return [event for batch in self.batches for event in batch]


@pytest.fixture
def box() -> Outbox:
    """Return an outbox with nothing in it."""
    return Outbox()


@pytest.fixture
def loop():
    """Return a loop whose time a test decides."""
    made = VirtualLoop()
    yield made
    for task in asyncio.all_tasks(made):
        task.cancel()
    made.settle()
    made.close()


@pytest.fixture
def reader(loop, box):
    """Read from the outbox, and take the first batch that a quiet second brings."""
    made = Reader(loop, box)
    loop.advance(PULSE_SECONDS)
    assert made.batches == [[]]
    made.batches.clear()
    made.times.clear()
    return made


def keep(box: Outbox, *ends) -> None:
    for end in ends:
        box.expect(end.job_id, end.epoch)
        box.add(end)


def test_silence_is_sent_as_an_empty_batch_each_second(loop, reader):
    """Whoever reads knows that the host lives."""
    loop.advance(3 * PULSE_SECONDS)
    assert reader.batches == [[], [], []]


@pytest.mark.parametrize(("watched", "seconds"), [(set(), CALM_SECONDS), ({"a"}, WATCHED_SECONDS)])
def test_steps_come_twice_a_second_or_more_often_where_somebody_looks(
    loop, box, reader, watched, seconds
):
    """Steps in between are told of together."""
    box.watched |= watched
    for done in range(1, 101):
        box.add(step(done, seconds=0.02))
        loop.advance(0.02)
    gaps = [then - before for before, then in zip(reader.times, reader.times[1:], strict=False)]
    assert gaps == pytest.approx([seconds] * len(gaps))
    told = reader.events
    assert sum(each.steps for each in told) == told[-1].progress["a"]
    assert sum(each.seconds for each in told) == pytest.approx(0.02 * told[-1].progress["a"])
    assert sum(each.shares["a"] for each in told) == pytest.approx(0.02 * told[-1].progress["a"])


@pytest.mark.parametrize("urgent", [READY, EXITED, OUT_OF_MEMORY, FAILED])
def test_whatever_is_no_step_goes_at_once_with_what_was_before_it(loop, box, reader, urgent):
    """The order stays."""
    box.add(step(1))
    loop.advance(0)
    box.add(step(2))
    box.expect("a", 1)
    box.add(urgent)
    loop.advance(0)
    assert reader.batches[-1] == [step(2), urgent]


def test_steps_of_other_batches_are_told_of_by_themselves(loop, box, reader):
    """Their images, sizes, models or attempts are others."""
    told = [step(1), step(1, "a", "b"), step(1, size=128), replace(step(2), model_id="other")]
    told += [step(1), step(2, epoch=2)]
    box.add(step(0))
    loop.advance(0)
    for each in told:
        box.add(each)
    loop.advance(CALM_SECONDS)
    assert reader.batches[-1] == told


def test_jobs_of_equal_batches_are_told_of_together(loop, box, reader):
    """One of them left and another came: each has its share and its newest step."""
    box.add(step(0))
    loop.advance(0)
    box.add(step(3, "a", "b"))
    box.add(step(4, "b", "c"))
    loop.advance(CALM_SECONDS)
    (merged,) = reader.batches[-1]
    assert merged.progress == {"a": 3, "b": 4, "c": 4}
    assert merged.shares == {"a": 0.125, "b": 0.25, "c": 0.125}
    assert (merged.steps, merged.batch_size, merged.pixels) == (2, 2, 2 * 64 * 64)


def test_no_step_is_told_of_before_what_came_in_between(loop, box):
    """Without a reader they wait, and an end separates them."""
    keep(box, finished("b"))
    box.add(step(1))
    box.add(OUT_OF_MEMORY)
    box.add(step(2))
    reader = Reader(loop, box)
    loop.advance(0)
    assert reader.events == [finished("b"), step(1), OUT_OF_MEMORY, step(2)]


def test_a_report_has_a_most_number_of_steps(loop, box):
    """More would not be believed."""
    for done in range(MOST_STEPS + 1):
        box.add(step(done))
    reader = Reader(loop, box)
    loop.advance(0)
    assert [each.steps for each in reader.events] == [MOST_STEPS, 1]


def test_of_previews_the_newest_of_each_job_is_sent(loop, box, reader):
    """Steps before and after a preview are told of together all the same."""
    box.add(step(0))
    loop.advance(0)
    for said in (step(1), preview(1), preview(1, "b"), step(2), preview(2)):
        box.add(said)
    loop.advance(CALM_SECONDS)
    merged = replace(step(2), steps=2, seconds=0.5, shares={"a": 0.5})
    assert reader.batches[-1] == [merged, preview(1, "b"), preview(2)]


def test_ends_are_kept_until_they_are_acknowledged(loop, box):
    """A reader that begins hears of those that were not."""
    keep(box, finished("a"), finished("b"))
    first = Reader(loop, box)
    loop.advance(0)
    assert first.events == [finished("a"), finished("b")]
    box.acknowledge("a", 2)
    assert box.held == (Held(job_id="a", epoch=1), Held(job_id="b", epoch=1))
    box.acknowledge("a", 1)
    box.replay()
    second = Reader(loop, box)
    loop.advance(0)
    assert second.events == [finished("b")]
    assert first.reading.done()


def test_an_end_that_nobody_expects_any_more_is_not_sent(loop, box, reader):
    """Another attempt took its place while its images were packed."""
    box.expect("a", 1)
    box.forget("a")
    box.expect("b", 2)
    box.add(finished("a"))
    box.add(finished("b"))
    loop.advance(0)
    assert reader.events == []


def test_ends_that_were_sent_are_forgotten_before_they_fill_the_memory(loop, box, monkeypatch):
    """Those that were not are never: nobody else has them."""
    monkeypatch.setattr(outbox, "KEPT_BYTES", 3000)
    keep(box, *(finished(job, 1000) for job in "abcde"))
    assert len(box.held) == 5
    Reader(loop, box)
    loop.advance(0)
    assert [each.job_id for each in box.held] == ["d", "e"]


def test_large_ends_are_sent_one_by_one(loop, box, monkeypatch):
    """Others need not wait for a batch of many megabytes."""
    monkeypatch.setattr(outbox, "LARGEST_BATCH", 1500)
    keep(box, *(finished(job, 1000) for job in "abc"))
    reader = Reader(loop, box)
    loop.advance(0)
    assert [len(batch) for batch in reader.batches] == [1, 1, 1]


def test_a_reader_that_begins_hears_what_lasts(loop, box):
    """Models in memory, what they need and what was measured, but nothing that is over."""
    capacity = Capacity(available=1, needs={})
    other = replace(capacity, model_id="other")
    loaded = ModelLoaded(model_id="other", model=MODEL, seconds=3.0)
    left = ModelLoaded(model_id="left", model=MODEL, seconds=3.0)
    calibrated = BatchCalibrated(batch=1, size=512, seconds={1: 0.1})
    adapters = AdaptersChanged(load_seconds=(1.0,), failures=1, evictions=1, held={})
    unloaded = ModelUnloaded(model_id="left", reason=UnloadReason.ASKED)
    said: list[Any] = [READY, replace(capacity, available=9), capacity, loaded, other, calibrated]
    for each in [*said, left, unloaded, adapters, preview(1)]:
        box.add(each)
    box.replay()
    reader = Reader(loop, box)
    loop.advance(0)
    lasting = [READY, capacity, replace(loaded, seconds=0.0), other, calibrated]
    assert reader.events == [*lasting, AdaptersChanged()]
    assert box.ready == written(READY)


def test_what_is_counted_is_told_to_the_next_reader(loop, box):
    """Seconds of the GPU and faults that no reader has taken; not those of an engine that ended."""
    box.add(READY)
    keep(box, finished("b"))
    for said in (step(1), preview(1), OUT_OF_MEMORY, step(2)):
        box.add(said)
    box.replay()
    reader = Reader(loop, box)
    loop.advance(0)
    assert reader.events == [READY, step(1), OUT_OF_MEMORY, step(2), finished("b")]
    box.add(step(3))
    box.add(EXITED)
    box.replay()
    loop.advance(CALM_SECONDS)
    assert reader.events[-1] == finished("b")


def test_an_end_of_an_earlier_attempt_takes_no_place(box):
    """The later one was cancelled before it could begin."""
    box.expect("a", 2)
    box.add(JobCancelled(job_id="a", epoch=2))
    box.expect("a", 1)
    box.add(JobCancelled(job_id="a", epoch=1))
    assert box.held == (Held(job_id="a", epoch=2),)


def test_nothing_lasts_of_an_engine_that_has_ended(loop, box):
    """The next one says it anew."""
    box.add(READY)
    box.add(EXITED)
    assert box.ready == b""
    box.replay()
    reader = Reader(loop, box)
    loop.advance(0)
    assert reader.events == []
