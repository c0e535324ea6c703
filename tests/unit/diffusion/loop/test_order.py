from dataclasses import replace
from typing import Any

import pytest

from service.core.spec import GenerationSpec
from service.diffusion.families.base import BatchKey
from service.diffusion.loop.order import RECOVERY_STEPS, BatchLimits, Sample, Task, next_batch
from service.diffusion.loop.starts.base import TextStart


def key(side: int) -> BatchKey:
    """Return the group of square images of a size."""
    return BatchKey(model="m", shape=(side // 8, side // 8), input_channels=4, tokens=77)


SMALL, LARGE = key(256), key(512)


def task(
    name: str, *, side: int = 256, steps: int = 10, images: int = 1, arrived: int = 0, **fields: Any
) -> Task:
    """Make a job that has not begun."""
    request = GenerationSpec(
        **{"prompt": "a cat", **fields}, width=side, height=side, steps=steps, num_images=images
    )
    return Task(
        job_id=name,
        epoch=1,
        request=request,
        start=TextStart(request),
        key=key(side),
        arrived=arrived,
    )


def chosen(*tasks: Task, limit: int = 4, clock: int = 0) -> list[str]:
    """Return the names of the jobs whose images move."""
    samples = [sample for one in tasks for sample in one.samples]
    return [sample.task.job_id for sample in next_batch(samples, BatchLimits(limit), clock)]


def test_one_size_moves_together() -> None:
    """Images of one size share a step whatever else differs between them."""
    assert chosen(task("a", steps=4), task("b", steps=50)) == ["a", "b"]


def test_sizes_do_not_mix() -> None:
    """Images of another size wait for a step of their own."""
    assert chosen(task("a"), task("b", side=512), task("c")) == ["a", "c"]


@pytest.mark.parametrize("other", [{"model": "n"}, {"input_channels": 9}, {"tokens": 154}])
def test_what_shares_no_call_does_not_mix(other: dict[str, Any]) -> None:
    """Images of one size wait, too, for those that another property keeps apart."""
    apart = task("b")
    apart.samples[0].key = replace(apart.key, **other)

    assert chosen(task("a"), apart, task("c")) == ["a", "c"]


def test_a_family_may_mix_sizes() -> None:
    """Its images move together; memory is asked about the largest of them."""
    asked: list[int] = []
    tasks = [task("a"), task("b", side=512)]
    for one in tasks:
        one.samples[0].key = replace(one.key, shape=None)

    def fits(pixels: int, most: int) -> int:
        asked.append(pixels)
        return most

    moved = next_batch([one.samples[0] for one in tasks], BatchLimits(4, fits=fits), 0)

    assert [sample.task.job_id for sample in moved] == ["a", "b"]
    assert asked == [512 * 512]


def test_limit_keeps_arrival_order() -> None:
    """Beyond the limit images wait; between equals it is first come, first served."""
    assert chosen(task("a", images=2), task("b", images=2), limit=3) == ["a", "a", "b"]


def test_shorter_work_first_among_newcomers() -> None:
    """Of two sizes that came together the one with less work goes first."""
    assert chosen(task("long", side=512), task("short")) == ["short"]


def test_short_job_overtakes_a_long_one() -> None:
    """A newcomer that needs little soon has the higher ratio of waiting to work."""
    long, short = task("long", side=512, steps=50), task("short", steps=4, arrived=1_000_000)
    step = 512 * 512

    assert chosen(long, short, clock=1_000_000) == ["long"]
    assert chosen(long, short, clock=1_000_000 + step) == ["short"]


def test_waiting_brings_everyone_to_the_front() -> None:
    """However many short jobs keep coming, a long one's turn comes."""
    long = task("long", side=512, steps=50)
    clock, turns = 0, 0
    while chosen(long, task("short", steps=4, arrived=clock), clock=clock) == ["short"]:
        clock += 256 * 256 * 4
        turns += 1
        assert turns < 1000

    assert turns > 0


def test_progress_is_averaged_down_over_images() -> None:
    """A job of several images is as far as its images are on average, begun or not."""
    job = task("a", images=4)

    assert job.steps_done == 0
    assert [sample.index for sample in job.samples] == [0, 1, 2, 3]
    assert job.samples[0].work_left == 256 * 256 * 10


def test_limit_is_halved_where_memory_ran_out() -> None:
    """Only the size that did not fit gets a smaller batch, and never less than one image."""
    limits = BatchLimits(8)

    limits.lower(LARGE, 6)

    assert (limits.of(LARGE, 512 * 512), limits.of(SMALL, 256 * 256)) == (3, 8)
    limits.lower(LARGE, 3)
    limits.lower(LARGE, 1)
    assert limits.of(LARGE, 512 * 512) == 1


def test_limit_is_what_fits_into_memory() -> None:
    """It is asked for as many as the size may have otherwise; one that ran out may have fewer."""
    asked: list[tuple[int, int]] = []

    def fits(pixels: int, most: int) -> int:
        asked.append((pixels, most))
        return min(most, 2)

    limits = BatchLimits(8, fits=fits)
    samples = [Sample(task=task(name), index=0) for name in "abc"]

    assert len(next_batch(samples, limits, 0)) == 2
    limits.lower(SMALL, 2)
    assert len(next_batch(samples, limits, 0)) == 1
    assert asked == [(256 * 256, 8), (256 * 256, 1)]


def test_limit_recovers() -> None:
    """After many steps without trouble the batch doubles again, up to its first limit."""
    limits = BatchLimits(3)
    limits.lower(LARGE, 3)
    limits.moved(SMALL)

    for expected in (1, 2, 3):
        assert limits.of(LARGE, 512 * 512) == expected
        for _ in range(RECOVERY_STEPS):
            limits.moved(LARGE)


def test_short_job_moves_before_a_long_one_of_its_size() -> None:
    """While a batch is full it waits for some steps, not for the end of an image."""
    step = 256 * 256
    long = [task("a", steps=50), task("b", steps=50)]
    late = task("late", steps=4, arrived=60 * step)

    assert chosen(*long, task("c", steps=4), limit=2) == ["a", "c"]
    assert chosen(*long, late, limit=2, clock=60 * step) == ["a", "b"]
    assert chosen(*long, late, limit=2, clock=68 * step) == ["a", "late"]


def test_sample_without_row_is_not_finished() -> None:
    """An image that has not begun is not ready to be decoded."""
    assert not Sample(task=task("a"), index=0).finished


def test_sub_prompts_take_places() -> None:
    """Images with AND fill a batch sooner; one that is too large for it moves alone."""
    pair, other, many = (
        task(name, prompt=prompt, prompt_syntax="a1111")
        for name, prompt in (
            ("pair", "a AND b"),
            ("other", "a AND b"),
            ("many", "a AND b AND c AND d"),
        )
    )

    assert [sample.places for sample in (*pair.samples, *many.samples)] == [1.5, 2.5]
    assert chosen(pair, other, limit=3) == ["pair", "other"]
    assert chosen(task("a"), pair, task("b"), limit=3) == ["a", "b"]
    assert chosen(task("a", arrived=9), pair, limit=3) == ["a", "pair"]
    assert chosen(many, limit=2) == ["many"]
    assert many.samples[0].work_left == 2.5 * 256 * 256 * 10
