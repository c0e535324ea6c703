"""What the life of a job writes into the metrics."""

from service.diffusion.generation import JobFinished, ModelInfo, Stepped
from service.jobs.job import Job
from service.telemetry.metrics import Metrics


def stepped(metrics: Metrics, event: Stepped) -> None:
    """Count one denoising step of one batch."""
    metrics.step_duration.observe(event.seconds)
    metrics.batch_size.observe(event.batch_size)
    metrics.steps.inc(event.batch_size)
    for kind in ("allocated", "reserved", "peak", "host_resident"):
        metrics.memory.labels(kind).set(getattr(event.memory, kind))


def finished(metrics: Metrics, event: JobFinished) -> None:
    """Count the pictures of a job, and its time in each stage of the engine."""
    for stage in ("text_encode", "denoise", "decode"):
        metrics.stage_duration.labels(stage).observe(getattr(event.times, stage))
    metrics.images.inc(len(event.pictures))
    metrics.pixels.inc(sum(picture.width * picture.height for picture in event.pictures))


def ended(metrics: Metrics, job: Job) -> None:
    """Count a job that ended, whichever way."""
    metrics.jobs.labels(job.outcome).inc()
    metrics.job_duration.observe((job.ended or job.created) - job.created)


def loaded(metrics: Metrics, model: ModelInfo) -> None:
    """Name the model in use."""
    metrics.model_load.set(model.load_seconds)
    metrics.model_info.clear()
    metrics.model_info.labels(model.model_id, model.version, model.device, model.dtype).set(1)
