"""Error form of the native API: problem details (RFC 9457)."""

import json
from typing import Any, Final

from aiohttp import web

from service.errors import ServiceError, ValidationFailed
from service.http.route import Api, ErrorFacts
from service.http.schema.answers import Problem
from service.telemetry import labels

MEDIA_TYPE: Final = "application/problem+json"


def problem(error: ServiceError, facts: ErrorFacts) -> web.Response:
    """Return ``error`` as RFC 9457 does, with ``code``, ``request_id`` and ``errors`` added.

    ``type`` is the address of the kind of error in the API description.
    """
    body: dict[str, Any] = {
        "type": f"{facts.prefix}/openapi.json#/components/responses/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": facts.instance,
        "code": error.code,
        "request_id": facts.request_id,
    }
    if isinstance(error, ValidationFailed):
        body["errors"] = error.errors
    # ASCII escapes keep half a surrogate pair in an unknown field's name from failing here.
    return web.Response(
        status=error.status, body=json.dumps(body).encode(), content_type=MEDIA_TYPE
    )


NATIVE: Final = Api(name=labels.NATIVE, render_error=problem, error_schema=Problem)
