"""What the life of a job and of its engine writes into the metrics and the log."""

import structlog

from service.diffusion.generation import (
    Calibrated,
    Capacity,
    JobFinished,
    MemoryUse,
    ModelInfo,
    OutOfMemoryHit,
    StageTimes,
    Stepped,
)
from service.engine.base import EngineState
from service.engine.messages import EngineExited
from service.jobs.job import Job
from service.telemetry.exemplars import exemplar
from service.telemetry.labels import CIRCUIT_OPEN, ENGINE_STATES, size_class
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


def accepted(metrics: Metrics, job: Job, depth: int) -> None:
    """Count what was asked for."""
    log.info("job_queued", depth=depth, **job.log_context)
    request = job.request
    metrics.accepted.labels(request.sampler).inc()
    metrics.job_images.observe(request.num_images)
    metrics.job_steps.observe(request.steps)
    metrics.job_pixels.observe(request.width * request.height)


def begun(metrics: Metrics, job: Job) -> None:
    """Time how long a job waited for its first batch."""
    log.info("job_started", attempt=job.attempts, **job.log_context)
    if job.attempts == 1 and job.started is not None:
        metrics.queue_wait.observe(job.started - job.created, _exemplar(job))


def stepped(metrics: Metrics, event: Stepped, limit: int) -> None:
    """Count one denoising step of one batch, whose pictures all have one size."""
    size = size_class(event.pixels // max(event.batch_size, 1))
    metrics.step_duration.labels(size).observe(event.seconds)
    metrics.batch_size.labels(size).observe(event.batch_size)
    metrics.batch_occupancy.observe(event.batch_size / limit)
    metrics.batch_live.set(event.batch_size)
    metrics.steps.inc(event.batch_size)
    metrics.engine_stepped_at.set_to_current_time()
    memory(metrics, event.memory)


def memory(metrics: Metrics, use: MemoryUse) -> None:
    """Show what the engine holds; without a GPU there is no GPU memory, rather than 0 of it."""
    if use.total:
        for kind in ("allocated", "reserved", "peak"):
            metrics.memory.labels(kind).set(getattr(use, kind))
    if use.host_resident:
        metrics.engine_resident.set(use.host_resident)


def out_of_memory(metrics: Metrics, event: OutOfMemoryHit) -> None:
    """Count an out-of-memory and the work that it cost."""
    log.warning("memory_ran_out", stage=event.stage, batch_size=event.batch_size, rung=event.rung)
    metrics.out_of_memory.labels(event.stage, event.rung).inc()
    metrics.out_of_memory_at.set_to_current_time()
    metrics.gpu_seconds.labels("failed" if event.rung == "fail" else "retried").inc(event.seconds)


def capacity(metrics: Metrics, capacity: Capacity, size: int) -> None:
    """Show how much memory pictures may take, and what one of ``size`` x ``size`` takes."""
    metrics.memory_available.set(capacity.available)
    for stage, need in capacity.need(size * size).items():
        metrics.memory_need.labels(stage).set(need)


def calibrated(metrics: Metrics, event: Calibrated) -> None:
    """Show which batch is the largest that gains anything."""
    metrics.batch_calibrated.set(event.batch)
    seconds = {str(count): round(taken, 4) for count, taken in event.seconds.items()}
    log.info("batch_calibrated", batch=event.batch, size=event.size, step_seconds=seconds)


def finished(metrics: Metrics, job: Job, event: JobFinished) -> None:
    """Count the pictures of a job, and its time in each stage of the engine."""
    memory(metrics, event.memory)
    times = event.times
    stages = {"text_encode": times.text_encode, "denoise": times.denoise}
    stages["vae_decode"] = times.vae_decode
    if times.safety:  # Only models with a checker have this stage.
        stages["safety"] = times.safety
    for stage, seconds in stages.items():
        metrics.stage_duration.labels(stage).observe(seconds, _exemplar(job))
    request = job.request
    metrics.generation_duration.labels(size_class(request.width * request.height)).observe(
        (job.ended or 0.0) - (job.started or 0.0), _exemplar(job)
    )
    metrics.images.inc(len(event.pictures))
    metrics.key_images.labels(metrics.key(job.key)).inc(len(event.pictures))
    metrics.pixels.inc(sum(picture.width * picture.height for picture in event.pictures))


def used(metrics: Metrics, job: Job, times: StageTimes) -> None:
    """Count the device time of a job by what became of it."""
    use = "useful" if job.outcome == "succeeded" else job.outcome
    metrics.gpu_seconds.labels(use).inc(times.total)
    metrics.key_gpu_seconds.labels(metrics.key(job.key)).inc(times.total)


def ended(metrics: Metrics, job: Job) -> None:
    """Count a job that ended, whichever way."""
    code = job.error.code if job.error is not None and job.outcome == "failed" else ""
    metrics.jobs.labels(job.outcome, code).inc()
    metrics.key_jobs.labels(metrics.key(job.key), job.outcome).inc()
    metrics.job_duration.labels(job.outcome).observe(
        (job.ended or job.created) - job.created, _exemplar(job)
    )
    metrics.job_finished_at.set_to_current_time()
    log.info(
        "job_ended",
        outcome=job.outcome,
        seconds=round((job.ended or 0) - job.created, 3),
        steps_done=job.steps_done,
        error=job.error.code if job.error else None,
        **job.log_context,
    )


def loaded(metrics: Metrics, model: ModelInfo, use: MemoryUse) -> None:
    """Name the model in use."""
    metrics.model_load.set(model.load_seconds)
    metrics.model_info.clear()
    metrics.model_info.labels(model.model_id, model.version, model.device, model.dtype).set(1)
    memory(metrics, use)
    log.info(
        "model_loaded",
        model_id=model.model_id,
        model_version=model.version,
        demo=model.demo,
        device=model.device,
        dtype=model.dtype,
        family=model.family,
        prediction_type=model.prediction_type,
        prediction_type_from=model.prediction_from,
        configuration=model.configuration,
        ignored_tensors=list(model.ignored),
        seconds=round(model.load_seconds, 3),
    )


def engine_exited(metrics: Metrics, event: EngineExited, lost: list[Job]) -> None:
    """Count an engine that ended, and the work that went down with it."""
    metrics.engine_restarts.labels(event.reason).inc()
    metrics.gpu_seconds.labels("lost").inc(sum(job.gpu_seconds for job in lost))
    metrics.memory.clear()  # A dead process holds none.
    metrics.engine_resident.forget()
    metrics.memory_available.forget()
    metrics.memory_need.clear()
    metrics.batch_calibrated.forget()
    log.error(
        "engine_exited",
        exit_code=event.exit_code,
        reason=event.reason,
        restarts=event.restarts,
        jobs=len(lost),
    )


def engine_state(metrics: Metrics, state: EngineState, *, circuit_open: bool) -> None:
    """Show which state the engine is in; one that is not trusted is in no other."""
    shown = CIRCUIT_OPEN if circuit_open else state.value
    for name in ENGINE_STATES:
        metrics.engine_state.labels(name).set(name == shown)


def _exemplar(job: Job) -> dict[str, str] | None:
    return exemplar(job.request_id, job.trace_id)
