"""The dispatcher over simulated engines: fair shares, waiting times and kept promises."""

import random
from dataclasses import replace
from statistics import fmean

import pytest

from service.core.inputs import Hires
from service.core.work import REST_STEPS, work
from service.jobs.job import Job, JobState
from tests.support.simulation.__main__ import kept, waits
from tests.support.simulation.engine import PIXEL_STEP
from tests.support.simulation.simulate import (
    PLACES,
    Promise,
    arrivals,
    fairness,
    request,
    simulated,
    wait,
)

SECONDS = 600.0


def chance(name: str) -> random.Random:
    return random.Random(name)  # noqa: S311 - repeatable, not secret


def test_a_lone_job_takes_what_its_work_takes():
    """No time passes but the engine's."""
    job = Job(request=request(20))
    with simulated(["only"]) as run:
        run.run([run.sends([(5.0, job)])], 60)
    assert (job.state, job.created, run.refused) == (JobState.SUCCEEDED, 5.0, [])
    assert wait(job) == pytest.approx(0, abs=1e-9)
    assert run.used == {"anonymous": pytest.approx(work(job.request) * PIXEL_STEP)}


def test_a_job_of_two_passes_takes_what_its_work_takes():
    """Each pass counts with its own pixels, for the job and for those behind it."""
    both = replace(request(20), hires=Hires(scale=2, steps=10, strength=0.5))
    jobs = [Job(request=both), *(Job(request=request(20)) for _ in range(PLACES))]
    with simulated(["only"]) as run:
        run.run([run.sends((float(number), job) for number, job in enumerate(jobs))], 600)
    assert work(both) == 512**2 * 20 + 1024**2 * (5 + REST_STEPS)
    assert run.used == {"anonymous": pytest.approx(sum(work(e.request) for e in jobs) * PIXEL_STEP)}


@pytest.mark.parametrize("engines", [1, 2])
def test_a_flood_leaves_the_others_their_share(engines):
    """Each key gets what it is due of the GPU time, and who asks for little is not refused."""
    owners = ["flood", "light-1", "light-2"]
    loads = dict(zip(owners, (2.0 * engines, 0.1, 0.1), strict=True))
    sent = [arrivals(chance(owner), owner, load, SECONDS) for owner, load in loads.items()]
    with simulated(owners, engines=engines) as run:
        run.run([run.sends(each) for each in sent], SECONDS)
    assert fairness(run.used, [job for each in sent for _, job in each]) > 0.99
    assert sum(run.used.values()) == pytest.approx(engines * SECONDS, rel=0.03)
    assert {job.owner for job in run.refused} == {"flood"}
    light, flood = (
        fmean(wait(job) for job in run.jobs if job.owner.startswith(name))
        for name in ("light", "flood")
    )
    assert light < flood / 4
    assert {job.engine for job in run.jobs} == {str(number) for number in range(engines)}


def test_short_jobs_wait_less_than_long_ones():
    """Inside a key, without starving the long ones."""
    mixed = arrivals(chance("mixed"), "only", 0.9, SECONDS)
    with simulated(["only"]) as run:
        run.run([run.sends(mixed)], SECONDS)
    assert len(run.jobs) == len(mixed)
    short, long = (
        fmean(wait(job) for job in run.jobs if job.request.steps == steps) for steps in (4, 50)
    )
    assert short < long < SECONDS / 6


@pytest.mark.parametrize("engines", [1, 2])
def test_what_refused_clients_are_told_comes_true(engines):
    """Who comes back after ``Retry-After`` finds a place, and few wait much longer."""
    count = PLACES * 2
    with simulated(["only"], engines=engines) as run:
        clients = [run.comes_back("only", chance(str(n))) for n in range(count)]
        run.run(clients, 2 * SECONDS / engines)
    assert len(run.places) > PLACES
    right = [0.5 <= max(each.true, 1) / max(each.told, 1) <= 2 for each in run.places]
    assert fmean(right) > 0.85
    begun = [0.5 <= max(each.true, 1) / max(each.told, 1) <= 2 for each in run.starts]
    assert fmean(begun) > 0.85


def test_the_same_seed_gives_the_same_run():
    """Nothing depends on the machine."""
    found = []
    for _ in range(2):
        with simulated(["only"]) as run:
            run.run([run.comes_back("only", chance(str(n))) for n in range(80)], 200)
        found.append((run.places, run.starts, run.used))
    assert found[0] == found[1]


def test_the_tables():
    """A row for each key and number of steps; a row for each kind of promise."""
    job = Job(request=request(4), owner="light-2", created=1.0)
    job.drawn = 1.0 + work(job.request) * PIXEL_STEP + 2.5
    refused = Job(request=request(4), owner="light-1")
    assert list(waits([job], [refused])) == ["| light | 4 | 1 | 1 | 2.5 | 2.5 | 2.5 |"]
    told = [Promise(owner="a", told=10.0, true=true) for true in (10.0, 12.0, 30.0)]
    assert kept("a", told) == "| a | 3 | 67% | 1.02 | 1.20 | 2.82 |"
    assert kept("a", []) == "| a | 0 | | | | |"
