"""What an operator sees of the jobs on the disk."""

import sqlite3

import pytest

from service.core.outcome import Delivery, DeliveryState
from service.core.spec import GenerationSpec
from service.images.encoded import Encoded
from service.jobs.durable.store_metrics import StoreMetrics
from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.memory import MemoryInputs
from service.jobs.job import JobState
from service.jobs.store.base import JobEnd
from service.jobs.store.sqlite import SqliteStore
from service.jobs.store.stored import StoredJob
from service.telemetry.metrics import Metrics
from tests.support.jobs.memory_results import MemoryResults
from tests.support.jobs.photos import received
from tests.support.samples import sample

IMAGE = [Encoded(data=b"x" * 1000, media_type="image/png")]


class Clock:
    """A time that a test decides."""

    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """Return a time that stands still."""
    return Clock()


@pytest.fixture
def metrics():
    """Return metrics of their own."""
    return Metrics()


@pytest.fixture
async def store(tmp_path, clock, metrics):
    """Open a store that is measured."""
    async with SqliteStore(
        tmp_path / "jobs.sqlite", clock=clock, metrics=metrics, busy_seconds=0.01
    ) as opened:
        yield opened


@pytest.fixture
def results(clock):
    """Return a store of images."""
    return MemoryResults(grace_seconds=0, clock=clock)


@pytest.fixture
def inputs():
    """Return a store of input images."""
    return MemoryInputs(UploadBounds(10_000))


def value(metrics, name, **labels):
    """Return a value as it is scraped, None where there is none."""
    return sample(metrics, name, **labels)


async def ended(store, number, state=JobState.SUCCEEDED, webhook=None):
    """Keep a job that is over, and return its id."""
    job = StoredJob(
        id=f"{number:032x}",
        owner="anna",
        request=GenerationSpec(prompt="a cat"),
        created_at=1.0,
        webhook=webhook,
    )
    await store.add(job)
    await store.finish(job.id, JobEnd(state=state))
    return job.id


async def test_jobs_bytes_and_deliveries_are_counted(store, results, inputs, metrics, clock):
    """By state; and how long the oldest delivery waits."""
    figures = StoreMetrics(store, results, inputs, metrics, clock=clock)
    await ended(store, 1)
    late = await ended(store, 2, webhook="https://example.org/")
    clock.now += 60
    await ended(store, 3, JobState.FAILED, webhook="https://example.org/")
    await results.write(late, IMAGE, {})
    await inputs.keep(late, {"image": received(inputs, bytes(700))})
    clock.now += 30
    await figures.count()
    assert value(metrics, "sd_jobs_kept", state="succeeded") == 2
    assert value(metrics, "sd_jobs_kept", state="failed") == 1
    assert value(metrics, "sd_jobs_kept", state="queued") == 0
    assert value(metrics, "sd_inputs_bytes") == 700
    assert value(metrics, "sd_results_bytes") == await results.used_bytes() > 1000
    assert value(metrics, "sd_webhooks_pending") == 2
    assert value(metrics, "sd_webhook_oldest_pending_age_seconds") == 90
    await figures.attempted(late, Delivery(attempts=1))
    await figures.attempted(late, Delivery(state=DeliveryState.DELIVERED, attempts=2))
    await figures.count()
    assert value(metrics, "sd_webhooks_pending") == 1
    assert value(metrics, "sd_webhook_oldest_pending_age_seconds") == 30
    found = {
        outcome: value(metrics, "sd_webhook_attempts_total", outcome=outcome)
        for outcome in ("delivered", "retried", "failed")
    }
    assert found == {"delivered": 1, "retried": 1, "failed": 0}
    assert (await store.get(late, "anna")).delivery.attempts == 2


async def test_what_is_removed_is_counted_by_its_reason(store, results, inputs, metrics, clock):
    """In bytes."""
    figures = StoreMetrics(store, results, inputs, metrics, clock=clock)
    jobs = [await ended(store, number) for number in range(3)]
    for job in jobs:
        await results.write(job, IMAGE, {})
        clock.now += 1
    each = await results.used_bytes() // 3
    await results.delete(jobs[0])
    figures.removed("age")
    assert await results.sweep(1e9, each) == [jobs[1]]
    figures.removed("room")
    figures.removed("room")
    for reason in ("age", "room"):
        assert value(metrics, "sd_results_removed_bytes_total", reason=reason) == each


async def test_a_change_is_timed_and_a_question_is_not(store, metrics):
    """A 202 waits for changes."""
    count = "sd_store_commit_duration_seconds_count"
    before = value(metrics, count)
    job = await ended(store, 1)
    assert value(metrics, count) == before + 2
    await store.get(job, "anna")
    assert value(metrics, count) == before + 2


async def test_a_failure_is_counted_by_what_is_wrong(store, metrics, tmp_path):
    """And the change that failed is not timed."""
    path = tmp_path / "jobs.sqlite"
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Exception, match="locked"):
        await ended(store, 1)
    other.close()
    assert value(metrics, "sd_store_failures_total", reason="locked") == 1
    assert value(metrics, "sd_store_commit_duration_seconds_count") == 0
    path.replace(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="replaced"):
        await ended(store, 1)
    assert value(metrics, "sd_store_failures_total", reason="replaced") == 1


async def test_a_disk_that_does_not_say_shows_nothing(store, results, inputs, metrics, tmp_path):
    """Rather than what it said last."""
    figures = StoreMetrics(store, results, inputs, metrics)
    await figures.count()
    assert value(metrics, "sd_webhooks_pending") == 0
    (tmp_path / "jobs.sqlite").replace(tmp_path / "elsewhere")
    await figures.count()
    assert value(metrics, "sd_webhooks_pending") is None
    assert value(metrics, "sd_jobs_kept", state="queued") is None
