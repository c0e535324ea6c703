"""The id of a request: its own ``X-Request-ID``, or a new one."""

import re
import uuid
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from service.http.state import REQUEST_ID

HEADER: Final = "X-Request-ID"
SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


def request_id(request: web.BaseRequest) -> str:
    """Return the request's own ``X-Request-ID`` if it is sane, else a new one."""
    given = request.headers.get(HEADER, "")
    return given if SANE_ID.fullmatch(given) else uuid.uuid4().hex


@web.middleware
async def request_ids(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take over a sane ``X-Request-ID`` or make one; logs and answers carry it."""
    request[REQUEST_ID] = request_id(request)
    with structlog.contextvars.bound_contextvars(request_id=request[REQUEST_ID]):
        return await handler(request)
