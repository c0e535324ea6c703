"""Images that a request refers to, read on the thread that sends them."""

from dataclasses import replace

import structlog

from service.core.events import JobFailed
from service.core.inputs import InputSource
from service.engine.inspection import checked
from service.engine.protocol import Generate
from service.errors import ServiceError

log = structlog.get_logger(__name__)


def with_inputs(command: Generate, inputs: InputSource, engine: str) -> Generate | JobFailed:
    """Return the command with its images, or the end of its job where they cannot be read."""
    try:
        return replace(command, inputs=checked(inputs(), command.request))
    except ServiceError as error:
        code, detail = error.code, error.detail
    except Exception:
        log.exception("inputs_failed", job_id=command.job_id, engine=engine)
        code, detail = ServiceError.code, "The images of the request cannot be read."
    return JobFailed(job_id=command.job_id, epoch=command.epoch, code=code, detail=detail)
