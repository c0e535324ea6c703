"""The API description (OpenAPI 3.1), from the decorators that also check the requests."""

import json
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

from service import __version__, errors
from service.errors import (
    BodyTooLarge,
    ExpectationFailed,
    Forbidden,
    JobsOff,
    MalformedRequest,
    QuotaExceeded,
    RateLimited,
    RequestTimedOut,
    ServiceError,
    StoreUnavailable,
    TooManyConnections,
    TooManyFailures,
    Unauthorized,
    UnsupportedEncoding,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.http import auth, timeouts
from service.http.answers import Problem
from service.http.decorators import docs
from service.http.job_answers import JobAnswer
from service.http.keys import CONFIG, KEYRING, OPENAPI
from service.http.middlewares import SANE_ID
from service.http.problems import MEDIA_TYPE, problem_body

DESCRIPTION: Final = (
    "Pictures from text with Stable Diffusion. Every error has the same shape, "
    "`application/problem+json` (RFC 9457). Every answer carries `X-Request-ID`: "
    "the one of the request if it has 1-128 characters of `A-Za-z0-9._-`, else a new one."
)
TAGS: Final = {
    "pictures": "Make them.",
    "jobs": "Have them made, and fetch them later.",
    "health": "See how the service is.",
    "description": "Read about it, and measure it.",
}
EVERYWHERE: Final = (
    MalformedRequest,
    ValidationFailed,
    Forbidden,
    RequestTimedOut,
    ExpectationFailed,
    TooManyConnections,
    ServiceError,
)
"""Errors that any route may answer; each reads ``X-Request-Timeout``."""

BODY: Final = (ValidationFailed, BodyTooLarge, UnsupportedMediaType, UnsupportedEncoding)
KEPT: Final = (StoreUnavailable, JobsOff)

CLOSED: Final = (Unauthorized, TooManyFailures)
COUNTED: Final = (RateLimited, QuotaExceeded)
SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": auth.HEADER},
    "metrics_token": {"type": "http", "scheme": "bearer"},
}

REQUEST_ID_PARAMETER: Final = {
    "in": "header",
    "name": "X-Request-ID",
    "required": False,
    "description": (
        "Your own id for this request; the answer and the log carry it if it matches "
        f"`{SANE_ID.pattern}`, else a new one."
    ),
    "schema": {"type": "string"},
    "example": "7f1c9a52",
}
LINKS: Final = {
    operation: {"operationId": operation, "parameters": {"id": "$response.body#/id"}}
    for operation in ("getJob", "watchJob", "getJobImage", "cancelJob")
}
"""From a job to what can be done with it."""
BINARY: Final = {"schema": {"type": "string", "format": "binary"}}


@docs(operationId="openapi", tags=["description"], summary="Describe this API (OpenAPI 3.1).")
async def openapi(request: web.Request) -> web.Response:
    """Answer with the description that was made at the start."""
    return web.Response(body=request.app[OPENAPI], content_type="application/json")


def describe(app: web.Application) -> bytes:
    """Return the description of every documented route of ``app`` as JSON."""
    spec = APISpec(
        title="sd-api",
        version=__version__,
        openapi_version="3.1.0",
        info={"description": DESCRIPTION, "license": {"name": "MIT", "identifier": "MIT"}},
        plugins=[MarshmallowPlugin(schema_name_resolver=lambda schema: type(schema).__name__)],
    )
    for name, text in TAGS.items():
        spec.tag({"name": name, "description": text})
    spec.components.schema("Problem", schema=Problem())
    for kind in _kinds(ServiceError):
        spec.components.response(kind.code, _response((kind,)))
    for name, scheme in SCHEMES.items():
        spec.components.security_scheme(name, scheme)
    for route in app.router.routes():
        said = getattr(route.handler, "__apispec__", None)
        if said is None or route.method == hdrs.METH_HEAD or route.resource is None:
            continue
        template = route.resource.canonical
        doors = _doors(template, route.method)
        headers = [REQUEST_ID_PARAMETER, _timeout(app)]
        operation = {**_operation(said, doors, headers), **_security(app, template)}
        spec.path(path=template, operations={route.method.lower(): operation})
    return json.dumps(spec.to_dict()).encode()


def _doors(template: str, method: str) -> tuple[type[ServiceError], ...]:
    """Return the errors that a route's doors may answer."""
    closed = template == auth.HEALTH or template not in auth.OPEN
    kept = KEPT if template.startswith("/jobs") else ()
    return (CLOSED if closed else ()) + (COUNTED if method == hdrs.METH_POST else ()) + kept


def _timeout(app: web.Application) -> dict[str, Any]:
    most = app[CONFIG].request_timeout_seconds
    return {
        "in": "header",
        "name": timeouts.HEADER,
        "required": False,
        "description": "Seconds after which the request is answered with 408.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": most},
        "example": most,
    }


def _security(app: web.Application, template: str) -> dict[str, Any]:
    """Return what a route wants to see, with the settings of ``app``."""
    if template == auth.METRICS_ROUTE:
        return {"security": [{"metrics_token": []}]} if app[CONFIG].metrics_token else {}
    if not app[KEYRING] or (template in auth.OPEN and template != auth.HEALTH):
        return {}
    optional: list[dict[str, Any]] = [{}] if template == auth.HEALTH else []
    return {"security": [*optional, {"bearer": []}, {"api_key": []}]}


def _operation(
    said: dict[str, Any], doors: tuple[type[ServiceError], ...], headers: list[dict[str, Any]]
) -> dict[str, Any]:
    """Turn what the decorators noted (in Swagger 2.0's terms) into an operation of 3.1."""
    operation: dict[str, Any] = {
        name: said[name]
        for name in ("operationId", "tags", "summary", "description")
        if name in said
    }
    operation["parameters"] = [*said["parameters"], *headers]
    for sent in said["schemas"]:
        example = {name: value for name, value in sent["example"].items() if name != "add_to_refs"}
        operation["requestBody"] = {
            "required": sent["options"]["required"],
            "content": {"application/json": {"schema": sent["schema"], "example": example}},
        }
    responses: dict[str, Any] = {
        code: _success(code, response, said.get("produces", []))
        for code, response in said["responses"].items()
    } or {"200": _plain(said)}
    body = BODY if said["schemas"] else ()
    by_status: dict[int, list[type[ServiceError]]] = {}
    for kind in dict.fromkeys((*said.get("errors", ()), *body, *doors, *EVERYWHERE)):
        by_status.setdefault(kind.status, []).append(kind)
    for status, kinds in sorted(by_status.items()):
        responses[str(status)] = kinds[0].code if len(kinds) == 1 else _response(tuple(kinds))
    return {**operation, "responses": responses}


def _plain(said: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {media_type: {"schema": {}} for media_type in said["produces"]}
    return {"description": said["summary"], "headers": _headers(), "content": content}


def _success(code: str, response: dict[str, Any], produces: list[str]) -> dict[str, Any]:
    if "schema" not in response:
        return {**response, "headers": _headers()}
    content: dict[str, Any] = {"application/json": {"schema": response["schema"]}}
    described: dict[str, Any] = {"description": response["description"], "headers": _headers()}
    if int(code) == HTTPStatus.OK and "image/png" in produces:
        content |= {name: BINARY for name in produces if name.startswith("image/")}
        described["headers"]["X-Metadata"] = {
            "description": "With a picture: the metadata as JSON, without the prompts.",
            "schema": {"type": "string"},
        }
    if int(code) == HTTPStatus.ACCEPTED:
        described["headers"]["Location"] = _always("Where the job is.")
    if isinstance(response["schema"], JobAnswer):
        described["links"] = LINKS
    return {**described, "content": content}


def _response(kinds: tuple[type[ServiceError], ...]) -> dict[str, Any]:
    status = kinds[0].status
    headers = _headers()
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = {
            "description": "Whole seconds after which a new try has a chance, where known.",
            "schema": {"type": "integer", "minimum": 1},
        }
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = _always("Bearer.")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _always("Methods to use.")
    examples = {kind.code: {"value": _example(kind)} for kind in kinds}
    return {
        "description": " · ".join(
            dict.fromkeys(example["value"]["title"] for example in examples.values())
        ),
        "headers": headers,
        "content": {MEDIA_TYPE: {"schema": Problem(), "examples": examples}},
    }


def _example(kind: type[ServiceError]) -> dict[str, Any]:
    error = (
        ValidationFailed({"width": ["must be a multiple of 64 between 256 and 768, e.g. 512"]})
        if issubclass(kind, ValidationFailed)
        else kind()
    )
    return problem_body(error, instance="/generate", request_id="7f1c9a52")


def _headers() -> dict[str, Any]:
    return {"X-Request-ID": _always("Finds the request in the log.")}


def _always(description: str) -> dict[str, Any]:
    return {"description": description, "required": True, "schema": {"type": "string"}}


def _kinds(root: type[ServiceError]) -> list[type[ServiceError]]:
    """Return ``root`` and everything below it that a request can meet."""
    below = [kind for child in root.__subclasses__() for kind in _kinds(child)]
    return [kind for kind in (root, *below) if not issubclass(kind, errors.ConfigError)]
