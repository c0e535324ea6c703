"""Report of an image that could not be made, for its client and the log."""

import math
import traceback

import structlog

from service.core.events import JobFailed
from service.core.spec import GenerationSpec
from service.diffusion.loop.order import Task
from service.diffusion.memory.usage import is_out_of_memory
from service.errors import (
    AdapterUnsuitable,
    GenerationFailed,
    OutOfMemory,
    SamplerUnsuitable,
    ServiceError,
)

log = structlog.get_logger(__name__)


def failed(task: Task, error: Exception) -> JobFailed:
    """Log an error that ends a job, and return the report of it."""
    reason = _reason(task.request, error)
    ends = {"job_id": task.job_id, "code": reason.code, "detail": reason.detail}
    if isinstance(error, SamplerUnsuitable | AdapterUnsuitable):  # The request's fault, not ours.
        log.info("request_refused", **ends)
    else:
        # Frames as plain text: renderers that show local variables would show the prompt.
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("generation_failed", **ends, frames=frames)
    return JobFailed(**ends, epoch=task.epoch, times=task.times)


def _reason(request: GenerationSpec, error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if is_out_of_memory(error):
        width, height = max((request.width, request.height), request.drawn_size, key=math.prod)
        return OutOfMemory(
            f"One image of {width}x{height} does not fit into memory, even "
            "alone. Ask for a smaller size."
        )
    cause = next(iter(str(error).strip().splitlines()), "")
    return GenerationFailed(f"{type(error).__name__}: {cause}")
