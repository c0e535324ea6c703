"""Why a picture could not be made, as its client and the log are told."""

import traceback

import structlog

from service.diffusion.generation import GenerationRequest, JobFailed, StageTimes
from service.diffusion.memory import is_out_of_memory
from service.errors import GenerationFailed, OutOfMemory, SamplerUnsuitable, ServiceError

log = structlog.get_logger(__name__)


def failed(
    job_id: str, request: GenerationRequest, error: Exception, times: StageTimes
) -> JobFailed:
    """Log an error that ends a job, and return the report of it."""
    reason = _reason(request, error)
    if isinstance(error, SamplerUnsuitable):  # The request's fault, not ours.
        log.info("request_refused", job_id=job_id, code=reason.code, detail=reason.detail)
        return JobFailed(job_id=job_id, code=reason.code, detail=reason.detail, times=times)
    # Frames as plain text: renderers that show local variables would show the prompt.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error(
        "generation_failed", job_id=job_id, code=reason.code, detail=reason.detail, frames=frames
    )
    return JobFailed(job_id=job_id, code=reason.code, detail=reason.detail, times=times)


def _reason(request: GenerationRequest, error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory(
            f"One picture of {request.width}x{request.height} does not fit into memory, even "
            "alone. Ask for a smaller size."
        )
    cause = next(iter(str(error).strip().splitlines()), "")
    return GenerationFailed(f"{type(error).__name__}: {cause}")
