"""Error answers: the form of the API that a request belongs to, and the headers of HTTP."""

import math
import uuid
from http import HTTPStatus

from aiohttp import hdrs, web

from service import errors
from service.errors import ServiceError
from service.http.prefix import prefixed
from service.http.route import Api, ErrorFacts
from service.http.state import ERROR_CODE, REQUEST_ID, ROUTE


def error_answer(request: web.BaseRequest, error: ServiceError, api: Api) -> web.Response:
    """Answer ``request`` with ``error`` in the form of ``api``."""
    request[ERROR_CODE] = error.code
    facts = ErrorFacts(
        instance=path(request), request_id=request[REQUEST_ID], prefix=prefixed(request, "")
    )
    answer = api.render_error(error, facts)
    if error.retry_after is not None:
        answer.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, errors.Unauthorized):
        basic = 'Basic realm="sd-api", charset="UTF-8"'
        answer.headers[hdrs.WWW_AUTHENTICATE] = basic if api.basic else error.challenge
    if isinstance(error, errors.MethodNotAllowed):
        answer.headers[hdrs.ALLOW] = ", ".join(error.allow)
    if isinstance(error, errors.UnsupportedEncoding):
        answer.headers[hdrs.ACCEPT_ENCODING] = ", ".join(error.known)
    return answer


def raw_error(error: ServiceError, api: Api) -> bytes:
    """Return the bytes of an answer for a connection on which no request was parsed."""
    facts = ErrorFacts(instance="/", request_id=uuid.uuid4().hex, prefix="")
    answer = api.render_error(error, facts)
    lines = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {answer.content_length}",
        f"X-Request-ID: {facts.request_id}",
        f"Retry-After: {math.ceil(error.retry_after or 1)}",
        *("Server: sd-api", "Cache-Control: no-store", "Connection: close"),
    )
    assert isinstance(answer.body, bytes)  # noqa: S101 - tells mypy what renderers make
    return "\r\n".join((*lines, "", "")).encode("ascii") + answer.body


def path(request: web.BaseRequest) -> str:
    """Return the path that was asked for; the target of CONNECT has none."""
    return prefixed(request, request.rel_url.raw_path or "/")


def from_aiohttp(error: web.HTTPException, request: web.BaseRequest) -> ServiceError:
    """Translate an error of aiohttp: no route, wrong method, body too large."""
    docs = prefixed(request, "/docs")
    match error:
        case web.HTTPNotFound() if request.method == hdrs.METH_CONNECT:
            return errors.NotFound(f"This is no proxy; see {docs} for what it does.")
        case web.HTTPNotFound():
            return errors.NotFound(f"There is nothing at {path(request)}; see {docs}.")
        case web.HTTPExpectationFailed():
            return errors.ExpectationFailed("Leave the header Expect out, or send 100-continue.")
        case web.HTTPMethodNotAllowed():
            allow = tuple(sorted(error.allowed_methods))
            return errors.MethodNotAllowed(f"Use {' or '.join(allow)} here.", allow=allow)
        case web.HTTPRequestEntityTooLarge():
            limit, row = request.client_max_size, request.get(ROUTE)
            setting = "MAX_IMAGE_BYTES" if row and row.body_bytes else "MAX_BODY_BYTES"
            return errors.BodyTooLarge(
                f"The body must not be larger than {limit} bytes ({setting})."
            )
    return ServiceError()
