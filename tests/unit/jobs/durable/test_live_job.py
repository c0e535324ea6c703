"""A job that is not over, and its row."""

import pytest

from service.jobs.durable import live_job
from service.jobs.durable.live_job import Durability, Terms, job_of, new_job
from tests.support.jobs.kept_jobs import REQUEST
from tests.unit.jobs.rows import stored


@pytest.mark.parametrize(
    ("known", "restored"), [(("native", "sdapi"), "sdapi"), (("native",), "native")]
)
def test_a_restored_job_keeps_the_api_that_it_came_through(monkeypatch, known, restored):
    """One that this version does not know is no label of its metrics."""
    accepted = new_job(REQUEST, "anna", Durability.PROMISED, Terms(api="sdapi"))
    monkeypatch.setattr(live_job, "APIS", known)
    assert accepted.stored.api == "sdapi"
    assert job_of(accepted.stored).api == restored


def test_a_restored_job_goes_on_with_the_next_epoch():
    """Also where an attempt was handed back, so that fewer count than there were."""
    job = job_of(stored(attempts=1, epoch=4))
    job.begin()
    assert (job.attempts, job.epoch) == (2, 5)
