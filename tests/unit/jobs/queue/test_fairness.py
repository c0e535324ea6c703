"""Whose job is next."""

import itertools
import random
from collections import Counter

import pytest

from service.core.spec import GenerationSpec
from service.core.work import work
from service.jobs.job import Job
from service.jobs.queue.fairness import AGEING, QUANTUM, Lanes

SHAPES = ((4, 256), (4, 512), (20, 512), (20, 768), (50, 512), (50, 768))
LARGEST = work(GenerationSpec(prompt="", steps=50, width=768, height=768))


def job(key: str = "a", steps: int = 20, side: int = 512) -> Job:
    request = GenerationSpec(prompt="a cat", steps=steps, width=side, height=side)
    return Job(request=request, owner=key)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - repeatable, not secret


def filled(*jobs: Job, weights: dict[str, int] | None = None) -> Lanes:
    lanes = Lanes(weights or {})
    for each in jobs:
        lanes.put(each)
    return lanes


def taken(lanes: Lanes, count: int) -> list[Job]:
    return [lanes.take() for _ in range(count)]


def any_job(chance: random.Random, keys: str = "abc") -> Job:
    return job(chance.choice(keys), *chance.choice(SHAPES))


def test_equal_jobs_of_one_key_are_served_as_they_came():
    """For equal jobs of one key the order is first come, first served."""
    lanes = Lanes({})
    order: list[Job] = []
    chance = seeded(1)
    jobs = [job() for _ in range(200)]
    coming = iter(jobs)
    waiting = 0
    while len(order) < len(jobs):
        if (chance.random() < 0.6 or not waiting) and (new := next(coming, None)):
            lanes.put(new)
            waiting += 1
        elif waiting:
            order.append(lanes.take())
            waiting -= 1
    assert order == jobs


def test_equal_keys_take_turns():
    """A key with many jobs waiting does not hold up another with few."""
    many, few = [job("a") for _ in range(6)], [job("b") for _ in range(2)]
    lanes = filled(*many, *few)
    assert [each.owner for each in taken(lanes, 8)] == list("ababaaaa")


def test_turns_are_turns_of_gpu_time():
    """A key of 4-step jobs gets as many pixel steps as one of 50-step jobs, not as many jobs."""
    lanes = filled(*[job("long", 50) for _ in range(20)], *[job("short", 4) for _ in range(200)])
    used: Counter[str] = Counter()
    for each in taken(lanes, 120):
        used[each.owner] += work(each.request)
        assert abs(used["long"] - used["short"]) <= QUANTUM + work(job(steps=50).request) * 2
    assert used["long"] == pytest.approx(used["short"], rel=0.1)


@pytest.mark.parametrize("seed", range(10))
def test_busy_keys_get_their_weights_within_one_job(seed):
    """At no moment are keys that always wait further apart than a quantum and a job each."""
    chance, weights = seeded(seed), {"a": 1, "b": 3, "c": 5}
    lanes = filled(
        *(job(key, *chance.choice(SHAPES)) for key in "abc" for _ in range(60)), weights=weights
    )
    used: Counter[str] = Counter()
    for _ in range(300):
        done = lanes.take()
        used[done.owner] += work(done.request)
        lanes.put(job(done.owner, *chance.choice(SHAPES)))
        shares = {key: used[key] / weight for key, weight in weights.items()}
        for (one, mine), (other, theirs) in itertools.permutations(weights.items(), 2):
            bound = QUANTUM + LARGEST / mine + LARGEST / theirs
            assert shares[one] - shares[other] <= bound


def test_equal_jobs_are_shared_out_by_weight_within_one_quantum():
    """Where a job is a quantum, weights are kept to the job in every round."""
    lanes = filled(*[job(k, steps=1, side=256) for k in "ab" for _ in range(40)], weights={"b": 3})
    assert [each.owner for each in taken(lanes, 16)] == list("abbbabbbabbbabbb")


def test_what_was_not_claimed_is_forfeited():
    """A key that comes back after a pause shares from now on; it has nothing saved up."""
    lanes = filled(*[job("a") for _ in range(20)], job("b"))
    taken(lanes, 12)
    for _ in range(5):
        lanes.put(job("b"))
    assert [each.owner for each in taken(lanes, 8)].count("b") == 4


def test_a_short_job_overtakes_a_long_one_of_its_key():
    """Inside a key the least work goes first."""
    long, short = job(steps=50), job(steps=4)
    assert taken(filled(long, short), 2) == [short, long]


def test_a_long_job_is_overtaken_only_for_a_time():
    """Short jobs without end let a long one in after ``AGEING`` times its work."""
    long, short = job(steps=50), job(steps=4)
    lanes = filled(long, short)
    served = 0
    while (done := lanes.take()) is not long:
        served += work(done.request)
        lanes.put(job(steps=4))
    ageing = AGEING * (work(long.request) - work(short.request))
    assert ageing <= served <= ageing + work(short.request)


@pytest.mark.parametrize("seed", range(20))
def test_nobody_starves(seed):
    """A job waits for ``AGEING`` times its work and what of its key is in the queue at most.

    This is in work of its own key. Keys of the same weight get as much in the meantime, a
    quantum and a job or two more or less.
    """
    chance = seeded(seed)
    lanes = filled(*(any_job(chance) for _ in range(30)))
    watched = job("a", 50, 768)
    in_queue = most = sum(work(each.request) for _, each in lanes.order() if each.owner == "a")
    lanes.put(watched)
    own = others = 0
    while (done := lanes.take()) is not watched:
        new = any_job(chance)
        lanes.put(new)
        in_queue += work(new.request) * (new.owner == "a") - work(done.request) * (
            done.owner == "a"
        )
        most = max(most, in_queue)
        own += work(done.request) * (done.owner == "a")
        others += work(done.request) * (done.owner != "a")
    assert own <= AGEING * LARGEST + most
    assert others <= 2 * (own + QUANTUM + 3 * LARGEST)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_told_is_the_order_served(seed):
    """Without newcomers jobs are handed out exactly as ``order`` says, whatever came before."""
    chance, weights = seeded(seed), {"b": 2, "c": 7}
    lanes = Lanes(weights)
    jobs: list[Job] = []
    for _ in range(200):
        match chance.choices(("put", "take", "discard", "refund"), (6, 3, 1, 1))[0]:
            case "put":
                jobs.append(any_job(chance))
                lanes.put(jobs[-1])
            case "take" if jobs:
                jobs.remove(lanes.take())
            case "discard" if jobs:
                assert lanes.discard(jobs.pop(chance.randrange(len(jobs))))
            case "refund":
                lanes.refund(chance.choice("abc"), chance.randrange(LARGEST))
    assert [lanes.turn(each) for _, each in lanes.order()] == [turn for turn, _ in lanes.order()]
    told = [each for _, each in lanes.order()]
    assert sorted(told, key=id) == sorted(jobs, key=id)
    assert taken(lanes, len(jobs)) == told


@pytest.mark.parametrize("seed", range(10))
def test_the_next_job_is_the_first_in_line_whatever_happened(seed):
    """Jobs of many keys come, leave, are served before their turn, and are paid back."""
    chance = seeded(seed)
    keys = "abcdefghijklmnop"
    lanes = Lanes(dict.fromkeys("abc", 3))
    waiting: list[Job] = []
    for _ in range(1500):
        what = chance.random()
        if what < 0.45 or not waiting:
            waiting.append(any_job(chance, keys))
            lanes.put(waiting[-1])
        elif what < 0.75:
            waiting.remove(lanes.take())
        elif what < 0.85:
            lanes.refund(chance.choice(keys), work(any_job(chance).request))
        else:
            one = waiting.pop(chance.randrange(len(waiting)))
            if what < 0.95:
                lanes.discard(one)
            else:
                lanes.take(one)
        first = [each for _, each in lanes.order()][:1]
        assert first == ([lanes.first()] if waiting else [])


def test_the_order_depends_on_the_requests_alone():
    """The same arrivals are served in the same order again."""

    def served() -> list[tuple[str, int, int]]:
        chance = seeded(7)
        jobs = [any_job(chance) for _ in range(100)]
        return [
            (each.owner, each.request.steps, each.request.width)
            for each in taken(filled(*jobs), 100)
        ]

    assert served() == served()


def test_a_refund_lets_a_key_go_on():
    """Work that was paid for and not done is the key's again."""
    lanes = filled(*[job("a") for _ in range(5)], *[job("b") for _ in range(5)])
    first = lanes.take()
    lanes.refund(first.owner, work(first.request))
    assert [each.owner for each in taken(lanes, 4)] == list("abab")


def test_a_refund_is_never_more_than_was_paid():
    """A key cannot collect credit by cancelling what an earlier busy time paid for."""
    lanes = filled(*[job("a") for _ in range(5)], *[job("b") for _ in range(5)])
    lanes.refund("b", 100 * LARGEST)
    lanes.refund("nobody", LARGEST)
    assert [each.owner for each in taken(lanes, 4)] == list("abab")


def test_an_empty_lane_hands_nothing_out():
    """There is no job to take where none waits, and none to discard."""
    lanes = filled(gone := job())
    assert lanes.discard(gone)
    assert not lanes.discard(gone)
    with pytest.raises(IndexError):
        lanes.take()


def test_a_key_that_comes_anew_joins_the_present_round():
    """It is served after what the others have had up to now, and not two rounds later."""
    quantum = {"steps": 1, "side": 256}
    lanes = filled(*[job("a", **quantum) for _ in range(6)])
    taken(lanes, 3)
    lanes.put(job("b", **quantum))
    lanes.put(job("b", **quantum))
    assert [each.owner for each in taken(lanes, 5)] == list("babaa")


def test_a_job_is_overtaken_by_sixteen_times_its_work_at_most():
    """Sixteen times what it needs more than they do: 24 pixel steps against 8 here."""
    long, short = {"steps": 21, "side": 256}, {"steps": 5, "side": 256}
    lanes = filled(watched := job("a", **long), job("a", **short))
    served = 0
    while lanes.take() is not watched:
        served += 1
        lanes.put(job("a", **short))
    assert served == 16 * (24 - 8) // 8
