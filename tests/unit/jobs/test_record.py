"""What the metrics say of jobs."""

from dataclasses import replace

import pytest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from service.core.capacity import MemoryUse
from service.core.events import JobFinished, OutOfMemoryHit, Stepped
from service.core.image import RawImage
from service.core.model import ModelInfo
from service.core.spec import GenerationSpec
from service.core.stage import Stage, StageTimes
from service.engine.protocol import EngineExited
from service.errors import Cancelled, Disconnected, GenerationFailed, RequestTimedOut, ShuttingDown
from service.jobs import record
from service.jobs.job import Job
from service.telemetry.metrics import Metrics
from tests.support.samples import sample


@pytest.fixture
def metrics() -> Metrics:
    """Make metrics in a registry of their own."""
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return sample(metrics, name, **labels)


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


def test_a_step_counts_once_per_image_in_it(metrics):
    """A step of a batch of three is three steps, one time and one batch size, in its class."""
    step = Stepped(batch_size=3, pixels=3 * 512**2, seconds=0.5, memory=MemoryUse(host_resident=7))
    record.stepped(metrics.engine("0"), step, 4)
    assert value(metrics, "sd_steps_total") == 3
    assert value(metrics, "sd_step_duration_seconds_count", size_class="medium") == 1
    assert value(metrics, "sd_step_duration_seconds_count", size_class="large") == 0
    assert value(metrics, "sd_batch_size_sum", size_class="medium") == 3
    assert value(metrics, "sd_batch_occupancy_ratio_sum") == 0.75
    assert value(metrics, "sd_engine_resident_memory_bytes") == 7


def test_steps_that_are_told_of_together_are_counted_one_by_one(metrics):
    """A host far away sends few messages; each step took its part of their seconds."""
    told = Stepped(batch_size=3, pixels=3 * 512**2, steps=5, seconds=2.5)
    record.stepped(metrics.engine("0"), told, 4)
    assert value(metrics, "sd_steps_total") == 15
    assert value(metrics, "sd_step_duration_seconds_count", size_class="medium") == 5
    assert value(metrics, "sd_step_duration_seconds_sum", size_class="medium") == 2.5
    assert value(metrics, "sd_batch_size_sum", size_class="medium") == 15
    assert value(metrics, "sd_batch_occupancy_ratio_sum") == 5 * 0.75


def test_gpu_memory_is_absent_without_a_gpu_and_gone_with_its_process(metrics):
    """A CPU has none, which is not the same as 0 bytes of it."""
    record.memory(metrics.engine("0"), MemoryUse(host_resident=7))
    assert value(metrics, "sd_engine_gpu_memory_bytes", kind="allocated") is None
    held = MemoryUse(allocated=3, reserved=4, peak=5, total=9, host_resident=7)
    record.memory(metrics.engine("0"), held)
    assert value(metrics, "sd_engine_gpu_memory_bytes", kind="reserved") == 4
    record.engine_exited(metrics.engine("0"), EngineExited(exit_code=1, restarts=1), [])
    assert value(metrics, "sd_engine_gpu_memory_bytes", kind="allocated") is None
    assert value(metrics, "sd_engine_resident_memory_bytes") is None


def test_images_count_with_their_pixels(metrics):
    """Two images of 64x64 are 8192 pixels; their stages are timed once per job."""
    image = RawImage(width=64, height=64, pixels=b"", seed=0)
    times = StageTimes(text_encode=0.1, denoise=2, vae_decode=0.3)
    made = JobFinished(job_id="a", epoch=1, images=(image, image), times=times)
    request = GenerationSpec(prompt="a cat", width=64, height=64, num_images=2)
    record.finished(metrics, Job(request=request, started=1.0, drawn=4.0), made)
    assert value(metrics, "sd_images_total") == 2
    assert value(metrics, "sd_pixels_total") == 8192
    assert value(metrics, "sd_stage_duration_seconds_sum", stage="denoise") == 2
    assert value(metrics, "sd_stage_duration_seconds_count", stage="safety") == 0
    assert value(metrics, "sd_generation_duration_seconds_sum", size_class="small") == 3


def test_jobs_count_for_their_key(metrics):
    """By its name; the jobs of a key that is gone count as others."""
    metrics.know_keys(("alice",))
    image = RawImage(width=64, height=64, pixels=b"", seed=0)
    times = StageTimes(text_encode=0.5, denoise=2, vae_decode=0.5)
    made = JobFinished(job_id="a", epoch=1, images=(image, image), times=times)
    for name in ("alice", "bob"):
        job = Job(request=GenerationSpec(prompt="a cat"), owner=name, started=1.0)
        job.draw(made, "v1")
        job.succeed()
        record.finished(metrics, job, made)
        record.used(metrics, job, times)
        record.ended(metrics, job)
    for label in ("alice", "other"):
        assert value(metrics, "sd_key_images_total", key=label) == 2
        assert value(metrics, "sd_key_gpu_seconds_total", key=label) == 3
        assert value(metrics, "sd_key_jobs_total", key=label, outcome="succeeded") == 1


def test_what_is_asked_for_is_counted_at_the_door(metrics):
    """Sampler, steps, images and pixels, in buckets of their own."""
    request = GenerationSpec(prompt="a cat", steps=30, num_images=2, sampler="ddim")
    record.accepted(metrics, Job(request=request), 1)
    assert value(metrics, "sd_jobs_accepted_total", sampler="ddim") == 1
    assert value(metrics, "sd_job_steps_bucket", le="30.0") == 1
    assert value(metrics, "sd_job_steps_bucket", le="25.0") == 0
    assert value(metrics, "sd_job_images_sum") == 2
    assert value(metrics, "sd_job_pixels_bucket", le=f"{512**2}.0") == 1


@pytest.mark.parametrize(("rung", "use"), [("split_batch", "retried"), ("fail", "failed")])
def test_an_out_of_memory_counts_by_stage_and_rung_with_its_time(metrics, rung, use):
    """What was lost is either done again or failed."""
    hit = OutOfMemoryHit(stage=Stage.DENOISE, batch_size=2, rung=rung, seconds=0.5)
    assert value(metrics, "sd_oom_last_timestamp_seconds") == 0
    record.out_of_memory(metrics.engine("0"), hit)
    assert value(metrics, "sd_oom_total", stage="denoise", rung=rung) == 1
    assert value(metrics, "sd_gpu_seconds_total", use=use) == 0.5
    assert (value(metrics, "sd_oom_last_timestamp_seconds") or 0) > 1e9


def test_latencies_lead_to_their_request(metrics):
    """Queue wait, duration and stages carry the request's id and its trace's as exemplars."""
    job = Job(request=GenerationSpec(prompt="a cat"), request_id="r-1", trace_id="f" * 32)
    job.begin()
    record.begun(metrics, job)
    made = JobFinished(job_id=job.id, epoch=1, images=(), times=StageTimes(denoise=1))
    job.draw(made, "demo-1")
    job.succeed()
    record.finished(metrics, job, made)
    record.ended(metrics, job)
    text = openmetrics(metrics.registry).decode()
    led = {
        line.split("_bucket")[0]
        for line in text.splitlines()
        if f'# {{request_id="r-1",trace_id="{"f" * 32}"}}' in line
    }
    assert led == {
        "sd_queue_wait_seconds",
        "sd_job_duration_seconds",
        "sd_generation_duration_seconds",
        "sd_stage_duration_seconds",
    }


@pytest.mark.parametrize(
    ("exited", "reason"),
    [
        (EngineExited(exit_code=-9, restarts=1), "killed"),
        (EngineExited(exit_code=-9, restarts=1, cause="stalled"), "stalled"),
        (EngineExited(exit_code=-11, restarts=1), "crashed"),
        (EngineExited(exit_code=1, restarts=1), "exited"),
        (EngineExited(exit_code=None, restarts=1), "not_started"),
    ],
)
def test_every_end_of_an_engine_has_its_reason(metrics, exited, reason):
    """Killed by others, by the watchdog, by a fault of its own, or ended by itself."""
    record.engine_exited(metrics.engine("0"), exited, [])
    assert value(metrics, "sd_engine_restarts_total", reason=reason) == 1


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (lambda job: job.succeed(), "succeeded"),
        (lambda job: job.fail(GenerationFailed()), "failed"),
        (lambda job: job.cancel(RequestTimedOut()), "timed_out"),
        (lambda job: job.cancel(Disconnected()), "disconnected"),
        (lambda job: job.cancel(Cancelled()), "cancelled"),
        (lambda job: job.cancel(ShuttingDown()), "shut_down"),
    ],
)
async def test_every_end_has_its_outcome(metrics, end, outcome):
    """A job is counted once, under the way it ended."""
    job = Job(request=GenerationSpec(prompt="a cat"))
    end(job)
    record.ended(metrics, job)
    code = "generation_failed" if outcome == "failed" else ""
    assert value(metrics, "sd_jobs_total", outcome=outcome, code=code) == 1
    assert value(metrics, "sd_job_duration_seconds_count", outcome=outcome) == 1
    assert (value(metrics, "sd_job_last_finished_timestamp_seconds") or 0) > 1e9


def test_only_the_model_in_use_is_named(metrics):
    """After another model was loaded the former one's series is gone."""
    for version in ("one", "two"):
        record.loaded(metrics.engine("0"), model(version), MemoryUse())
    labels = {"model_id": "demo", "device": "cpu", "dtype": "float32"}
    assert value(metrics, "sd_model_info", version="one", **labels) is None
    assert value(metrics, "sd_model_info", version="two", **labels) == 1


def test_the_gpu_of_an_engine_is_named(metrics):
    """By its UUID, for as long as the engine computes there."""
    for uuid in ("GPU-1", "GPU-2"):
        record.loaded(metrics.engine("0"), replace(model("one"), gpu_uuid=uuid), MemoryUse())
    assert value(metrics, "sd_engine_gpu_info", gpu="GPU-1") is None
    assert value(metrics, "sd_engine_gpu_info", gpu="GPU-2") == 1
    record.loaded(metrics.engine("0"), model("one"), MemoryUse())
    assert value(metrics, "sd_engine_gpu_info", gpu="GPU-2") is None
