"""Error form of the OpenAI API, and what its clients are told about sending again."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from marshmallow import Schema, fields

from service import errors
from service.errors import ServiceError, ValidationFailed
from service.http.compat.errors import rendered
from service.http.route import Api, ErrorFacts
from service.http.schema.answers import described
from service.telemetry import labels

SHOULD_RETRY: Final = "x-should-retry"
"""Header that OpenAI's packages obey before they look at the status."""

USELESS: Final = (
    *(errors.RequestTimedOut, errors.IdempotencyConflict, errors.Cancelled),
    *(errors.QuotaExceeded, errors.TooManyFailures, errors.JobsOff),
    *(errors.EngineCrashed, errors.GenerationFailed, errors.ResultDamaged),
)
"""Errors with a status that the packages would send the request again for, without a chance: its
time is over, or the same would happen again. A job that crashed the engine was tried again here."""

CODES: Final[Mapping[str, str]] = {
    errors.Unauthorized.code: "invalid_api_key",
    errors.RateLimited.code: "rate_limit_exceeded",
    errors.QuotaExceeded.code: "insufficient_quota",
}
"""Codes that programs know from OpenAI; all others are those of the native API."""

SERVER: Final = 500
TYPES: Final[Mapping[int, str]] = {403: "permission_error", 408: "timeout", 429: "rate_limit_error"}


class OpenAIErrorDetail(Schema):
    """What is wrong."""

    message = described(fields.String, "What is wrong and how to fix it.", "There is no model.")
    type = described(fields.String, "Kind of the error.", "invalid_request_error")
    param = described(fields.String, "The first wrong field.", "size", allow_none=True)
    code = described(fields.String, "Code of the error.", "model_not_found")


class OpenAIError(Schema):
    """An error of the OpenAI API."""

    error = fields.Nested(
        OpenAIErrorDetail, required=True, metadata={"description": "What is wrong."}
    )


def body(error: ServiceError) -> dict[str, Any]:
    """Return the body of an answer with ``error``, and the data of an event with it."""
    kind = TYPES.get(error.status, "invalid_request_error")
    if error.status >= SERVER:
        kind = "server_error"
    return {
        "error": {
            "message": error.detail,
            "type": CODES.get(error.code, kind)
            if isinstance(error, errors.QuotaExceeded)
            else kind,
            "param": _param(error),
            "code": CODES.get(error.code, error.code),
        }
    }


def _param(error: ServiceError) -> str | None:
    if isinstance(error, errors.ModelNotFound):
        return "model"
    named = error.errors if isinstance(error, ValidationFailed) else {}
    return next((name for name in named if name != "body"), None)


def render(error: ServiceError, facts: ErrorFacts) -> web.Response:
    """Return ``error`` as OpenAI's packages read it."""
    del facts
    answer = rendered(error, body(error))
    if isinstance(error, USELESS):
        answer.headers[SHOULD_RETRY] = "false"
    return answer


OPENAI: Final = Api(
    name=labels.OPENAI, prefixes=("/v1",), render_error=render, error_schema=OpenAIError
)
