"""What the metrics say of jobs."""

import pytest

from service.diffusion.generation import (
    GenerationRequest,
    JobFinished,
    MemoryUse,
    ModelInfo,
    Picture,
    StageTimes,
    Stepped,
)
from service.errors import Cancelled, GenerationFailed, RequestTimedOut, ShuttingDown
from service.jobs import measurement
from service.jobs.job import Job
from service.telemetry.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    """Make metrics in a registry of their own."""
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def model(version: str) -> ModelInfo:
    return ModelInfo(
        model_id="demo",
        version=version,
        family="sd",
        demo=True,
        device="cpu",
        gpu=False,
        dtype="float32",
        load_seconds=1.5,
    )


def test_a_step_counts_once_per_picture_in_it(metrics):
    """A step of a batch of three is three steps, one time and one batch size."""
    step = Stepped(batch_size=3, pixels=1, seconds=0.5, memory=MemoryUse(host_resident=7))
    measurement.stepped(metrics, step)
    assert value(metrics, "sd_steps_total") == 3
    assert value(metrics, "sd_step_duration_seconds_count") == 1
    assert value(metrics, "sd_batch_size_sum") == 3
    assert value(metrics, "sd_engine_memory_bytes", kind="host_resident") == 7


def test_pictures_count_with_their_pixels(metrics):
    """Two pictures of 64x64 are 8192 pixels; their stages are timed once per job."""
    picture = Picture(width=64, height=64, pixels=b"", seed=0)
    times = StageTimes(text_encode=0.1, denoise=2, decode=0.3)
    job = JobFinished(job_id="a", pictures=(picture, picture), times=times)
    measurement.finished(metrics, job)
    assert value(metrics, "sd_images_total") == 2
    assert value(metrics, "sd_pixels_total") == 8192
    assert value(metrics, "sd_stage_duration_seconds_sum", stage="denoise") == 2


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (lambda job: job.succeed(JobFinished(job_id=job.id, pictures=()), "demo-1"), "succeeded"),
        (lambda job: job.fail(GenerationFailed()), "failed"),
        (lambda job: job.cancel(RequestTimedOut()), "timed_out"),
        (lambda job: job.cancel(Cancelled()), "client_gone"),
        (lambda job: job.cancel(ShuttingDown()), "cancelled"),
    ],
)
async def test_every_end_has_its_outcome(metrics, end, outcome):
    """A job is counted once, under the way it ended."""
    job = Job(request=GenerationRequest(prompt="a cat"))
    end(job)
    measurement.ended(metrics, job)
    assert value(metrics, "sd_jobs_total", outcome=outcome) == 1
    assert value(metrics, "sd_job_duration_seconds_count") == 1


def test_only_the_model_in_use_is_named(metrics):
    """After another model was loaded the former one's series is gone."""
    for version in ("one", "two"):
        measurement.loaded(metrics, model(version))
    labels = {"model_id": "demo", "device": "cpu", "dtype": "float32"}
    assert value(metrics, "sd_model_info", version="one", **labels) is None
    assert value(metrics, "sd_model_info", version="two", **labels) == 1
