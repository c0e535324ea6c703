"""The API description (OpenAPI 3.1), from the decorators that also check the requests."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema

from service import __version__, errors
from service.core.limits import RequestLimits
from service.errors import ServiceError, ValidationFailed
from service.http.middleware import auth, cors, deadline
from service.http.middleware.request_ids import SANE_ID
from service.http.native.problems import NATIVE
from service.http.prefix import prefixed
from service.http.route import Access, Api, ErrorFacts, Route
from service.http.schema.decorators import docs
from service.http.schema.forms import BINARY, form_of, has_form, without_files
from service.http.schema.job_answers import JobAnswer
from service.http.schema.orders import LimitedSchema
from service.http.state import CONFIG, DISPATCHER, KEYRING, ROUTES
from service.http.uploads import multipart

DESCRIPTION: Final = (
    "Images from text with Stable Diffusion. Every error has the same shape, "
    "`application/problem+json` (RFC 9457). Every answer carries `X-Request-ID`: "
    "the one of the request if it has 1-128 characters of `A-Za-z0-9._-`, else a new one."
)
TAGS: Final = {
    "images": "Make images.",
    "openai": "Make images as the API of OpenAI does.",
    "sdapi": "Make images as the API of AUTOMATIC1111's web UI does.",
    "jobs": "Make images in the background and fetch them later.",
    "models": "What images are made with.",
    "health": "Status of the service.",
    "description": "Documentation and metrics.",
}
EVERYWHERE: Final = (
    *(errors.MalformedRequest, ValidationFailed, errors.Forbidden, errors.RequestTimedOut),
    *(errors.ExpectationFailed, errors.TooManyFromAddress, errors.TooManyConnections),
    ServiceError,
)
"""Errors that any route may answer; each reads ``X-Request-Timeout``."""

BODY: Final = (
    *(ValidationFailed, errors.BodyTooLarge),
    *(errors.UnsupportedMediaType, errors.UnsupportedEncoding),
)
CLOSED: Final = (errors.Unauthorized, errors.TooManyFailures)
COUNTED: Final = (errors.RateLimited, errors.QuotaExceeded)
SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
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
FACTS: Final = ErrorFacts(instance="/generate", request_id="7f1c9a52", prefix="")
EVENTS: Final = "text/event-stream"
DESCRIPTIONS: Final = 8
"""Descriptions that are kept: one for the limits of each model, of about 550 kB."""


@docs(summary="Describe this API (OpenAPI 3.1).")
async def openapi(request: web.Request) -> web.Response:
    """Answer with the description, and where the service is."""
    described, server = current(request.app), prefixed(request, "")
    if server:
        described = b'{"servers": [{"url": "%s"}], ' % server.encode() + described[1:]
    return web.Response(body=described, content_type="application/json")


def current(app: web.Application) -> bytes:
    """Return the description with the limits that hold now; it is made once for each."""
    config = app[CONFIG]
    return _describe(
        app[ROUTES].rows,
        app[DISPATCHER].limits(),
        config.request_timeout_seconds,
        keys=bool(app[KEYRING]),
        token=bool(config.metrics_token),
    )


@lru_cache(maxsize=DESCRIPTIONS)
def _describe(
    rows: Iterable[Route], limits: RequestLimits, longest: float, *, keys: bool, token: bool
) -> bytes:
    """Return the description of every documented row as JSON.

    ``longest`` is in seconds; ``keys`` and ``token`` say whether the service has API keys and a
    token for metrics.
    """
    plugin = MarshmallowPlugin(schema_name_resolver=lambda schema: type(schema).__name__)
    spec = APISpec(
        title="sd-api",
        version=__version__,
        openapi_version="3.1.0",
        info={"description": DESCRIPTION, "license": {"name": "MIT", "identifier": "MIT"}},
        plugins=[plugin],
    )
    assert plugin.converter is not None  # noqa: S101 - tells mypy what the line above made
    for name, text in TAGS.items():
        spec.tag({"name": name, "description": text})
    spec.components.schema("Problem", schema=NATIVE.error_schema())
    for kind in _kinds(ServiceError):
        spec.components.response(kind.code, _response((kind,), NATIVE))
    for name, scheme in SCHEMES.items():
        spec.components.security_scheme(name, scheme)
    headers = [REQUEST_ID_PARAMETER, _timeout(longest)]
    for route in filter(lambda route: route.operation, rows):
        operation = {
            **_operation(route, headers, limits, plugin.converter),
            **_security(route, keys=keys, token=token),
        }
        spec.path(path=route.path, operations={route.method.lower(): operation})
    return json.dumps(spec.to_dict()).encode()


def _refusals(route: Route) -> tuple[type[ServiceError], ...]:
    """Return the errors that the middlewares may answer on a route."""
    closed = () if route.access is Access.PUBLIC else CLOSED
    counted = COUNTED if route.counted else ()
    changes = () if route.method in cors.SAFE else (errors.CrossOrigin,)
    return closed + changes + counted


def _timeout(most: float) -> dict[str, Any]:
    return {
        "in": "header",
        "name": deadline.HEADER,
        "required": False,
        "description": "Seconds after which the request is answered with 408.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": most},
        "example": most,
    }


def _security(route: Route, *, keys: bool, token: bool) -> dict[str, Any]:
    """Return the credentials that a route asks for."""
    access = route.access
    if access is Access.METRICS_TOKEN:
        return {"security": [{"metrics_token": []}]} if token else {}
    if access is Access.PUBLIC or not keys:
        return {}
    optional: list[dict[str, Any]] = [{}] if access is Access.OPTIONAL_KEY else []
    basic: list[dict[str, Any]] = [{"basic": []}] if route.api.basic else []
    return {"security": [*optional, {"bearer": []}, {"api_key": []}, *basic]}


def _operation(
    route: Route,
    headers: list[dict[str, Any]],
    limits: RequestLimits,
    converter: OpenAPIConverter,
) -> dict[str, Any]:
    """Turn the notes of the decorators (in the terms of Swagger 2.0) into an operation of 3.1."""
    notes = route.handler.__apispec__  # type: ignore[attr-defined]
    texts = {name: notes[name] for name in ("summary", "description") if name in notes}
    operation: dict[str, Any] = {"operationId": route.operation, "tags": [route.tag], **texts}
    operation["parameters"] = [*notes["parameters"], *headers]
    for sent in notes["schemas"]:
        schema = sent["schema"]
        if isinstance(schema, LimitedSchema):
            schema = schema.within(limits)
        operation["requestBody"] = {
            "required": sent["options"]["required"],
            "content": _body(schema, sent["example"], converter),
        }
    responses: dict[str, Any] = {
        code: _success(code, response, notes.get("produces", []))
        for code, response in notes["responses"].items()
    } or {"200": _plain(notes)}
    body = BODY if notes["schemas"] else ()
    by_status: dict[int, list[type[ServiceError]]] = {}
    for kind in dict.fromkeys((*notes.get("errors", ()), *body, *_refusals(route), *EVERYWHERE)):
        by_status.setdefault(kind.status, []).append(kind)
    for status, kinds in sorted(by_status.items()):
        shared = len(kinds) == 1 and route.api is NATIVE
        responses[str(status)] = kinds[0].code if shared else _response(tuple(kinds), route.api)
    return {**operation, "responses": responses}


def _body(schema: Schema, noted: Mapping[str, Any], converter: OpenAPIConverter) -> dict[str, Any]:
    """Return the media types that a body may have."""
    example = {name: value for name, value in noted.items() if name != "add_to_refs"}
    content: dict[str, Any] = {"application/json": {"schema": schema, "example": example}}
    if has_form(schema):
        content[multipart.MEDIA_TYPE] = {
            "schema": form_of(schema, converter),
            "example": without_files(schema, example),
        }
    return content


def _plain(notes: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {media_type: {"schema": {}} for media_type in notes["produces"]}
    return {"description": notes["summary"], "headers": _headers(), "content": content}


def _success(code: str, response: dict[str, Any], produces: list[str]) -> dict[str, Any]:
    if "schema" not in response:
        return {**response, "headers": _headers()}
    content: dict[str, Any] = {"application/json": {"schema": response["schema"]}}
    described: dict[str, Any] = {"description": response["description"], "headers": _headers()}
    if EVENTS in produces:
        content[EVENTS] = {"schema": {"description": "Server-sent events."}}
    if int(code) == HTTPStatus.OK and "image/png" in produces:
        described["headers"]["X-Job-Id"] = _always("The job that made the images.")
        files = (name for name in produces if name.startswith("image/"))
        content |= {name: {"schema": BINARY} for name in files}
        described["headers"]["X-Metadata"] = {
            "description": "With an image: the metadata as JSON, without the prompts.",
            "schema": {"type": "string"},
        }
    if int(code) == HTTPStatus.ACCEPTED:
        described["headers"]["Location"] = _always("Where the job is.")
    if isinstance(response["schema"], JobAnswer):
        described["links"] = LINKS
    return {**described, "content": content}


def _response(kinds: tuple[type[ServiceError], ...], api: Api) -> dict[str, Any]:
    status = kinds[0].status
    headers = _headers()
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = {
            "description": "Whole seconds after which a new try has a chance, where known.",
            "schema": {"type": "integer", "minimum": 1},
        }
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = _always("Basic." if api.basic else "Bearer.")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _always("Methods to use.")
    examples = [_example(kind) for kind in kinds]
    answers = [api.render_error(example, FACTS) for example in examples]
    shown = {
        example.code: {"value": json.loads(answer.text or "")}
        for example, answer in zip(examples, answers, strict=True)
    }
    return {
        "description": " · ".join(dict.fromkeys(example.title for example in examples)),
        "headers": headers,
        "content": {answers[0].content_type: {"schema": api.error_schema(), "examples": shown}},
    }


def _example(kind: type[ServiceError]) -> ServiceError:
    if issubclass(kind, ValidationFailed):
        return kind({"width": ["must be a multiple of 64 between 256 and 768, e.g. 512"]})
    return kind()


def _headers() -> dict[str, Any]:
    return {"X-Request-ID": _always("Finds the request in the log.")}


def _always(description: str) -> dict[str, Any]:
    return {"description": description, "required": True, "schema": {"type": "string"}}


def _kinds(root: type[ServiceError]) -> list[type[ServiceError]]:
    """Return ``root`` and everything below it that a request can meet."""
    below = [kind for child in root.__subclasses__() for kind in _kinds(child)]
    return [kind for kind in (root, *below) if not issubclass(kind, errors.ConfigError)]
