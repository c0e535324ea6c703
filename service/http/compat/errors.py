"""Errors of the APIs of other products: which a request for images is answered with, and how."""

import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from service import errors
from service.errors import ServiceError
from service.http.native.jobs import REFUSALS

ERRORS: Final = (
    *(errors.ValidationFailed, errors.SamplerUnsuitable, errors.AdapterUnsuitable),
    *(errors.ModelNotFound, errors.IdempotencyConflict, errors.Cancelled, errors.JobExpired),
    *(*REFUSALS, errors.EngineCrashed, errors.GenerationFailed, errors.ResultDamaged),
    *(errors.Overloaded, ServiceError),
)
"""Of a request for images, whichever API it came through."""


def rendered(error: ServiceError, body: Mapping[str, Any]) -> web.Response:
    """Return the answer with ``error`` whose body an API has built."""
    # ASCII escapes keep half a surrogate pair in an unknown name from failing here.
    text = json.dumps(body).encode()
    return web.Response(status=error.status, body=text, content_type="application/json")
