"""The API description (OpenAPI 3.1), from the decorators that also check the requests."""

import json
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

from service import __version__, errors
from service.errors import (
    ExpectationFailed,
    Forbidden,
    MalformedRequest,
    QuotaExceeded,
    RateLimited,
    RequestTimedOut,
    ServiceError,
    TooManyConnections,
    TooManyFailures,
    Unauthorized,
    ValidationFailed,
)
from service.http import auth
from service.http.answers import Problem
from service.http.decorators import docs
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
    "health": "See how the service is.",
    "description": "Read about it, and measure it.",
}
EVERYWHERE: Final = (
    MalformedRequest,
    Forbidden,
    RequestTimedOut,
    ExpectationFailed,
    TooManyConnections,
    ServiceError,
)
"""Errors that any route may answer."""

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
    "description": "Your own id for this request; the answer and the log carry it.",
    "schema": {"type": "string", "pattern": f"^{SANE_ID.pattern}$"},
}
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
        operation = {**_operation(said, doors), **_security(app, template)}
        spec.path(path=template, operations={route.method.lower(): operation})
    return json.dumps(spec.to_dict()).encode()


def _doors(template: str, method: str) -> tuple[type[ServiceError], ...]:
    """Return the errors that a route's doors may answer."""
    closed = template == auth.HEALTH or template not in auth.OPEN
    return (CLOSED if closed else ()) + (COUNTED if method == hdrs.METH_POST else ())


def _security(app: web.Application, template: str) -> dict[str, Any]:
    """Return what a route wants to see, with the settings of ``app``."""
    if template == auth.METRICS_ROUTE:
        return {"security": [{"metrics_token": []}]} if app[CONFIG].metrics_token else {}
    if not app[KEYRING] or (template in auth.OPEN and template != auth.HEALTH):
        return {}
    optional: list[dict[str, Any]] = [{}] if template == auth.HEALTH else []
    return {"security": [*optional, {"bearer": []}, {"api_key": []}]}


def _operation(said: dict[str, Any], doors: tuple[type[ServiceError], ...]) -> dict[str, Any]:
    """Turn what the decorators noted (in Swagger 2.0's terms) into an operation of 3.1."""
    operation: dict[str, Any] = {
        name: said[name]
        for name in ("operationId", "tags", "summary", "description")
        if name in said
    }
    operation["parameters"] = [*said["parameters"], REQUEST_ID_PARAMETER]
    for body in said["schemas"]:
        example = {name: value for name, value in body["example"].items() if name != "add_to_refs"}
        operation["requestBody"] = {
            "required": body["options"]["required"],
            "content": {"application/json": {"schema": body["schema"], "example": example}},
        }
    responses: dict[str, Any] = {
        code: _success(response, said.get("produces", []))
        for code, response in said["responses"].items()
    } or {"200": _plain(said)}
    by_status: dict[int, list[type[ServiceError]]] = {}
    for kind in dict.fromkeys((*said.get("errors", ()), *doors, *EVERYWHERE)):
        by_status.setdefault(kind.status, []).append(kind)
    for status, kinds in sorted(by_status.items()):
        responses[str(status)] = kinds[0].code if len(kinds) == 1 else _response(tuple(kinds))
    return {**operation, "responses": responses}


def _plain(said: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {media_type: {"schema": {}} for media_type in said["produces"]}
    return {"description": said["summary"], "headers": _headers(), "content": content}


def _success(response: dict[str, Any], produces: list[str]) -> dict[str, Any]:
    if "schema" not in response:
        return {**response, "headers": _headers()}
    content: dict[str, Any] = {"application/json": {"schema": response["schema"]}}
    headers = _headers()
    if "image/png" in produces:
        content |= {name: BINARY for name in produces if name.startswith("image/")}
        headers["X-Metadata"] = {
            "description": "With a picture: the metadata as JSON, without the prompts.",
            "schema": {"type": "string"},
        }
    return {"description": response["description"], "headers": headers, "content": content}


def _response(kinds: tuple[type[ServiceError], ...]) -> dict[str, Any]:
    status = kinds[0].status
    headers = _headers()
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = {
            "description": "Whole seconds after which a new try has a chance, where known.",
            "schema": {"type": "integer", "minimum": 1},
        }
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = {"description": "Bearer.", "schema": {"type": "string"}}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = {"description": "Methods to use.", "schema": {"type": "string"}}
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
    return {
        "X-Request-ID": {
            "description": "Finds the request in the log.",
            "schema": {"type": "string"},
        }
    }


def _kinds(root: type[ServiceError]) -> list[type[ServiceError]]:
    """Return ``root`` and everything below it that a request can meet."""
    below = [kind for child in root.__subclasses__() for kind in _kinds(child)]
    return [kind for kind in (root, *below) if not issubclass(kind, errors.ConfigError)]
