"""The one shape of every error answer: RFC 9457 problem details."""

import json
import math
from typing import Any

from aiohttp import hdrs, web

from service.errors import (
    BodyTooLarge,
    ExpectationFailed,
    MethodNotAllowed,
    NotFound,
    ServiceError,
    Unauthorized,
    UnsupportedEncoding,
    ValidationFailed,
)
from service.http.keys import ERROR_CODE, REQUEST_ID

MEDIA_TYPE = "application/problem+json"


def problem_type(error: type[ServiceError]) -> str:
    """Return the address that identifies a kind of error, which is also its documentation."""
    return f"/openapi.json#/components/responses/{error.code}"


def problem_body(error: ServiceError, *, instance: str, request_id: str) -> dict[str, Any]:
    """Describe ``error`` as RFC 9457 does, with ``code``, ``request_id`` and ``errors`` added."""
    body: dict[str, Any] = {
        "type": problem_type(type(error)),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
        "code": error.code,
        "request_id": request_id,
    }
    if isinstance(error, ValidationFailed):
        body["errors"] = error.errors
    return body


def problem(request: web.BaseRequest, error: ServiceError) -> web.Response:
    """Answer ``request`` with ``error``."""
    request[ERROR_CODE] = error.code
    body = problem_body(error, instance=path(request), request_id=request[REQUEST_ID])
    # ASCII escapes keep half a surrogate pair in an unknown field's name from failing here.
    answer = web.Response(
        status=error.status, body=json.dumps(body).encode(), content_type=MEDIA_TYPE
    )
    if error.retry_after is not None:
        answer.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, Unauthorized):
        answer.headers[hdrs.WWW_AUTHENTICATE] = error.challenge
    if isinstance(error, MethodNotAllowed):
        answer.headers[hdrs.ALLOW] = ", ".join(error.allow)
    if isinstance(error, UnsupportedEncoding):
        answer.headers[hdrs.ACCEPT_ENCODING] = ", ".join(error.known)
    return answer


def path(request: web.BaseRequest) -> str:
    """Return the path that was asked for; the target of CONNECT has none."""
    return request.rel_url.raw_path or "/"


def from_aiohttp(error: web.HTTPException, request: web.BaseRequest) -> ServiceError:
    """Translate what aiohttp itself raises: no route, wrong method, body too large."""
    match error:
        case web.HTTPNotFound() if request.method == hdrs.METH_CONNECT:
            return NotFound("This is no proxy; see /docs for what it does.")
        case web.HTTPNotFound():
            return NotFound(f"There is nothing at {path(request)}; see /docs.")
        case web.HTTPExpectationFailed():
            return ExpectationFailed("Leave the header Expect out, or send 100-continue.")
        case web.HTTPMethodNotAllowed():
            allow = tuple(sorted(error.allowed_methods))
            return MethodNotAllowed(f"Use {' or '.join(allow)} here.", allow=allow)
        case web.HTTPRequestEntityTooLarge():
            limit = request.client_max_size
            return BodyTooLarge(f"The body may have {limit} bytes (MAX_BODY_BYTES).")
    return ServiceError()
