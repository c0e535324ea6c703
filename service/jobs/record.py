"""What the life of a job and of its engine writes into the metrics and the log."""

from collections.abc import Mapping
from typing import Final

import structlog

from service.core.capacity import AdapterPlace, Capacity, MemoryUse
from service.core.events import (
    AdaptersChanged,
    BatchCalibrated,
    JobFinished,
    ModelFailed,
    ModelLoaded,
    ModelsResident,
    ModelUnloaded,
    OutOfMemoryHit,
    Stepped,
)
from service.core.model import ModelInfo
from service.core.outcome import Outcome
from service.core.stage import OomRung, Stage, StageTimes
from service.engine.base import EngineState
from service.engine.protocol import EngineExited
from service.jobs.job import Job
from service.telemetry.engine import MEMORY_KINDS, EngineMetrics
from service.telemetry.exemplars import exemplar
from service.telemetry.labels import CIRCUIT_OPEN, ENGINE_STATES, size_class
from service.telemetry.metrics import Metrics

RARE: Final = (Stage.VAE_ENCODE, Stage.SAFETY)
"""Stages that only some requests and models have."""

log = structlog.get_logger(__name__)


def accepted(metrics: Metrics, job: Job, depth: int) -> None:
    """Count what was asked for."""
    log.info("job_queued", depth=depth, **job.log_context)
    request = job.request
    metrics.accepted.labels(job.api, request.sampler).inc()
    metrics.job_images.observe(request.num_images)
    metrics.job_steps.observe(request.total_steps)
    metrics.job_pixels.observe(request.largest_pixels)


def given_up(metrics: Metrics, job: Job) -> None:
    """Count a job that an earlier process accepted and this one will not run."""
    # Else more jobs would end than begin.
    metrics.accepted.labels(job.api, job.request.sampler).inc()
    ended(metrics, job)


def begun(metrics: Metrics, job: Job) -> None:
    """Time how long a job waited for its first batch."""
    log.info("job_started", engine=job.engine, attempt=job.attempts, **job.log_context)
    if job.attempts == 1 and job.started is not None:
        metrics.queue_wait.observe(job.started - job.created, _exemplar(job))


def stepped(engine: EngineMetrics, event: Stepped, limit: int) -> None:
    """Count the denoising steps of a report, whose images all have one size."""
    size = size_class(event.pixels // max(event.batch_size, 1))
    for _ in range(event.steps):
        engine.step_duration(size).observe(event.seconds / event.steps)
        engine.batch_size(size).observe(event.batch_size)
        engine.batch_occupancy.observe(event.batch_size / limit)
    engine.batch_live.set(event.batch_size)
    engine.steps.inc(event.batch_size * event.steps)
    engine.stepped_at.set_to_current_time()
    memory(engine, event.memory)


def memory(engine: EngineMetrics, use: MemoryUse) -> None:
    """Show what the engine holds; without a GPU there is no GPU memory, rather than 0 of it."""
    if use.total:
        for kind in MEMORY_KINDS:
            engine.memory(kind).set(getattr(use, kind))
    if use.host_resident:
        engine.resident.set(use.host_resident)


def out_of_memory(engine: EngineMetrics, event: OutOfMemoryHit) -> None:
    """Count an out-of-memory and the work that it cost."""
    log.warning(
        "memory_ran_out",
        engine=engine.name,
        stage=event.stage,
        batch_size=event.batch_size,
        rung=event.rung,
    )
    engine.out_of_memory(event.stage, event.rung).inc()
    engine.out_of_memory_at.set_to_current_time()
    use = "failed" if event.rung == OomRung.FAIL else "retried"
    engine.gpu_seconds(use).inc(event.seconds)


def capacity(engine: EngineMetrics, capacity: Capacity, size: int) -> None:
    """Show how much memory images may take, and what one of ``size`` x ``size`` takes."""
    engine.memory_available.set(capacity.available)
    for stage, need in capacity.need(size * size).items():
        engine.memory_need(stage).set(need)


def calibrated(engine: EngineMetrics, event: BatchCalibrated) -> None:
    """Show which batch is the largest that gains anything."""
    engine.batch_calibrated.set(event.batch)
    seconds = {str(count): round(taken, 4) for count, taken in event.seconds.items()}
    found = {"batch": event.batch, "size": event.size, "step_seconds": seconds}
    log.info("batch_calibrated", engine=engine.name, **found)


def adapters(engine: EngineMetrics, event: AdaptersChanged) -> None:
    """Count adapters that came and went, and show what they take."""
    for seconds in event.load_seconds:
        engine.adapter_load.observe(seconds)
    engine.adapter_loads("loaded").inc(len(event.load_seconds))
    engine.adapter_loads("failed").inc(event.failures)
    engine.adapter_evictions.inc(event.evictions)
    for place in AdapterPlace:
        engine.adapter_bytes(place).set(event.held.get(place, 0))


def finished(metrics: Metrics, job: Job, event: JobFinished) -> None:
    """Count the images of a job, and its time in each stage of the engine."""
    engine = metrics.engine(job.engine)
    memory(engine, event.memory)
    for stage, seconds in event.times.by_stage.items():
        if seconds or stage not in RARE:
            engine.stage_duration(stage).observe(seconds, _exemplar(job))
    request = job.request
    engine.generation_duration(size_class(request.width * request.height)).observe(
        (job.drawn or 0.0) - (job.started or 0.0), _exemplar(job)
    )
    engine.images.inc(len(event.images))
    metrics.key_images.labels(metrics.key(job.owner)).inc(len(event.images))
    engine.pixels.inc(sum(image.width * image.height for image in event.images))


def used(metrics: Metrics, job: Job, times: StageTimes) -> None:
    """Count the device time of a job by what became of it."""
    use = "useful" if job.outcome is Outcome.SUCCEEDED else job.outcome
    metrics.engine(job.engine).gpu_seconds(use).inc(times.total)
    metrics.key_gpu_seconds.labels(metrics.key(job.owner)).inc(times.total)


def ended(metrics: Metrics, job: Job) -> None:
    """Count a job that ended, whichever way."""
    code = job.error.code if job.error is not None and job.outcome is Outcome.FAILED else ""
    metrics.jobs.labels(job.api, job.outcome, code).inc()
    metrics.key_jobs.labels(metrics.key(job.owner), job.outcome).inc()
    metrics.job_duration.labels(job.api, job.outcome).observe(
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


def loaded(engine: EngineMetrics, model: ModelInfo, use: MemoryUse) -> None:
    """Name the model in use."""
    engine.model_load.set(model.load_seconds)
    labels = (model.model_id, model.version, model.device, model.dtype)
    engine.show_model(*labels, gpu=model.gpu_uuid)
    memory(engine, use)
    log.info(
        "model_loaded",
        engine=engine.name,
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


def model_came(engine: EngineMetrics, name: str, event: ModelLoaded) -> None:
    """Count a model that was loaded on demand; one that was there counts as none."""
    if event.seconds <= 0:
        return
    engine.model_loads(name, "parked" if event.parked else "disk").inc()
    engine.model_load_seconds(name).observe(event.seconds)
    memory(engine, event.memory)
    log.info(
        "model_loaded",
        engine=engine.name,
        model_id=name,
        model_version=event.model.version,
        family=event.model.family,
        parked=event.parked,
        seconds=round(event.seconds, 3),
    )


def model_left(engine: EngineMetrics, name: str, event: ModelUnloaded) -> None:
    """Note a model that left memory."""
    log.info("model_unloaded", engine=engine.name, model_id=name, reason=event.reason.value)


def model_failed(engine: EngineMetrics, name: str, event: ModelFailed) -> None:
    """Count a model that could not be loaded, while the others go on."""
    engine.model_loads(name, "failed").inc()
    log.error(
        "model_load_failed",
        engine=engine.name,
        model_id=name,
        code=event.code,
        detail=event.detail,
        transient=event.transient,
    )


def models_resident(
    engine: EngineMetrics, event: ModelsResident, names: Mapping[str, str], *, gpu: bool
) -> None:
    """Show what each model takes, and where; without a GPU all memory is the host's."""
    host = event.host if gpu else {**event.host, **event.device}
    for place, held in ((AdapterPlace.GPU, event.device if gpu else {}), (AdapterPlace.HOST, host)):
        engine.show_resident(place, {names[key]: size for key, size in held.items()})


def engine_exited(engine: EngineMetrics, event: EngineExited, lost: list[Job]) -> None:
    """Count an engine that ended, and the work that went down with it."""
    engine.restarts(event.reason).inc()
    engine.gpu_seconds("lost").inc(sum(job.gpu_seconds for job in lost))
    engine.forget()  # A dead process holds no memory.
    log.error(
        "engine_exited",
        engine=engine.name,
        exit_code=event.exit_code,
        reason=event.reason,
        restarts=event.restarts,
        jobs=len(lost),
    )


def engine_state(engine: EngineMetrics, state: EngineState, *, circuit_open: bool) -> None:
    """Show which state the engine is in; one that is not trusted is in no other."""
    shown = CIRCUIT_OPEN if circuit_open else state.value
    for name in ENGINE_STATES:
        engine.state(name).set(name == shown)


def _exemplar(job: Job) -> dict[str, str] | None:
    return exemplar(job.request_id, job.trace_id)
