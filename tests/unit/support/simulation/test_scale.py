"""Simulations of many GPUs with the service's own dispatcher, in a short form.

Every run insists on Little's law, and that no job is lost or ends twice (``ledger.Ledger``).
"""

import logging
from collections.abc import Iterator

import pytest
import structlog

from service.core.capacity import Capacity
from service.core.stage import Stage
from service.jobs.dispatch.placement import LOOKED_AT
from service.jobs.job import Job
from service.models.served.catalog import DEFAULT
from tests.support.simulation.scale.formulas import erlang_c, largest_load, lognormal, mean_wait
from tests.support.simulation.scale.load import failures, kept, shares
from tests.support.simulation.scale.waits import waits
from tests.support.simulation.simulate import request, simulated


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """Write none of the lines about thousands of jobs."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def test_erlang_c():
    """One server waits as often as it is busy; ten with eight's work wait in 41 % of the cases."""
    assert erlang_c(1, 0.7) == pytest.approx(0.7)
    assert erlang_c(2, 0.5) == pytest.approx(1 / 3)
    assert erlang_c(10, 0.8) == pytest.approx(0.4092, abs=1e-4)
    assert mean_wait(1, 0.5) == pytest.approx(1.0)
    assert mean_wait(1, 0.5, variation=0.0) == pytest.approx(0.5)
    assert mean_wait(8, largest_load(8, 0.25)) == pytest.approx(0.25, rel=1e-4)
    mu, sigma = lognormal(1.72)
    assert mu == pytest.approx(-(sigma**2) / 2)


def test_jobs_wait_as_long_as_the_formula_says():
    """So they do at a load at which the mean of a short run comes near it."""
    found = waits(8, 0.7, 1.0, jobs=4500, runs=3)
    assert found.waited == pytest.approx(erlang_c(8, 0.7), rel=0.2)
    assert found.mean == pytest.approx(found.formula, abs=max(4 * found.error, 0.1 * found.formula))


def test_a_flood_takes_what_others_leave():
    """Nobody else is refused or waits long, and every key gets its share."""
    found = shares(8, seconds=90, keys=5)
    assert found.used > 0.95
    assert found.light_refused == 0
    assert found.jain > 0.95
    assert found.light_wait < found.flood_wait


def test_clients_who_come_back_when_told_find_a_place():
    """What they are told is mostly right within a factor of two."""
    found = kept(8, seconds=120)
    assert len(found.promises) > 100
    assert found.within(found.promises) > 0.8


def test_engines_that_end_lose_no_job():
    """Single ones and whole machines end, and what they say too late changes nothing."""
    found = failures(16, seconds=60, between=60)
    assert found.died
    assert found.parted
    assert found.repeated
    assert found.succeeded + found.failed == found.accepted
    assert 1 < found.most_attempts <= 3


def test_a_job_finds_the_one_slot_of_many_that_has_the_memory_for_it():
    """Also where that one has more jobs than those that are looked at first."""
    small = Capacity(available=2**20, needs={Stage.DENOISE: (2.0**20, 1024.0)})
    jobs = [Job(request=request(20)) for _ in range(2)]
    with simulated(["any"], engines=LOOKED_AT + 2, batch=3) as run:
        run.loop.do(run.dispatcher.start())
        slots = run.dispatcher.slots
        for slot in slots[:-1]:
            slot.capacities[DEFAULT] = small
        for job in jobs:
            assert run.enters(job) is None
            run.loop.settle()
        assert [job.engine for job in jobs] == [slots[-1].name] * 2
