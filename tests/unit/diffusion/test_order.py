from service.diffusion.generation import GenerationRequest
from service.diffusion.order import RECOVERY_STEPS, BatchLimits, Place, Task, next_batch

SMALL, LARGE = (256, 256), (512, 512)


def task(name: str, *, side: int = 256, steps: int = 10, images: int = 1, arrived: int = 0) -> Task:
    """Make a job that has not begun."""
    request = GenerationRequest(
        prompt="a cat", width=side, height=side, steps=steps, num_images=images
    )
    return Task(job_id=name, request=request, arrived=arrived)


def chosen(*tasks: Task, limit: int = 4, clock: int = 0) -> list[str]:
    """Return the names of the jobs whose pictures move."""
    places = [place for one in tasks for place in one.places]
    return [place.task.job_id for place in next_batch(places, BatchLimits(limit), clock)]


def test_one_size_moves_together() -> None:
    """Pictures of one size share a step whatever else differs between them."""
    assert chosen(task("a", steps=4), task("b", steps=50)) == ["a", "b"]


def test_sizes_do_not_mix() -> None:
    """Pictures of another size wait for a step of their own."""
    assert chosen(task("a"), task("b", side=512), task("c")) == ["a", "c"]


def test_limit_keeps_arrival_order() -> None:
    """Beyond the limit pictures wait; between equals it is first come, first served."""
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


def test_progress_is_averaged_down_over_pictures() -> None:
    """A job of several pictures is as far as its pictures are on average, begun or not."""
    job = task("a", images=4)

    assert job.steps_done == 0
    assert [place.index for place in job.places] == [0, 1, 2, 3]
    assert job.places[0].work_left == 256 * 256 * 10


def test_limit_is_halved_where_memory_ran_out() -> None:
    """Only the size that did not fit gets a smaller batch, and never less than one picture."""
    limits = BatchLimits(8)

    limits.lower(LARGE, 6)

    assert (limits.of(LARGE), limits.of(SMALL)) == (3, 8)
    limits.lower(LARGE, 3)
    limits.lower(LARGE, 1)
    assert limits.of(LARGE) == 1


def test_limit_is_what_memory_has_room_for() -> None:
    """It is asked for as many as the size may have otherwise; one that ran out may have fewer."""
    asked: list[tuple[int, int]] = []

    def fits(pixels: int, most: int) -> int:
        asked.append((pixels, most))
        return min(most, 2)

    limits = BatchLimits(8, fits=fits)
    places = [Place(task=task(name), index=0) for name in "abc"]

    assert len(next_batch(places, limits, 0)) == 2
    limits.lower(places[0].size, 2)
    assert len(next_batch(places, limits, 0)) == 1
    assert asked == [(256 * 256, 8), (256 * 256, 1)]


def test_limit_recovers() -> None:
    """After many steps without trouble the batch doubles again, up to its first limit."""
    limits = BatchLimits(3)
    limits.lower(LARGE, 3)
    limits.moved(SMALL)

    for expected in (1, 2, 3):
        assert limits.of(LARGE) == expected
        for _ in range(RECOVERY_STEPS):
            limits.moved(LARGE)


def test_short_job_moves_before_a_long_one_of_its_size() -> None:
    """Beside a batch that is full it waits for some steps, not for the end of a picture."""
    step = 256 * 256
    long = [task("a", steps=50), task("b", steps=50)]
    late = task("late", steps=4, arrived=60 * step)

    assert chosen(*long, task("c", steps=4), limit=2) == ["a", "c"]
    assert chosen(*long, late, limit=2, clock=60 * step) == ["a", "b"]
    assert chosen(*long, late, limit=2, clock=68 * step) == ["a", "late"]


def test_place_without_row_is_not_finished() -> None:
    """A picture that has not begun is not ready to be decoded."""
    assert not Place(task=task("a"), index=0).finished
