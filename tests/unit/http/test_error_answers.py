"""Errors of an API in a form of its own: the table of routes decides."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from marshmallow import Schema, fields

from service.app import create_app
from service.config.credentials import Keys
from service.config.table import Config
from service.errors import ServiceError, ValidationFailed
from service.http import routes
from service.http.route import Api, ErrorFacts, Route
from service.http.schema import openapi
from service.http.schema.decorators import docs, request_schema
from service.http.state import ORDER
from tests.support.simulation.fake_engine import FakeEngine

KEY = "0123456789abcdef" * 2
BEARER = {"Authorization": f"Bearer {KEY}"}


class Failure(Schema):
    """Error form of the other API."""

    message = fields.String(required=True)
    request = fields.String(required=True)


def failure(error: ServiceError, facts: ErrorFacts) -> web.Response:
    """Return an error as the other API does."""
    body = {"message": f"{error.code}: {error.detail}", "request": facts.request_id}
    return web.json_response(body, status=error.status, content_type="application/failure+json")


OTHER = Api(
    name="other", prefixes=("/other", "/another"), render_error=failure, error_schema=Failure
)


class Wanted(Schema):
    """A request of the other API."""

    number = fields.Integer(required=True)


@docs(summary="Divide by a number.", errors=(ValidationFailed,))
@request_schema(Wanted(), put_into=ORDER, required=True, example={"number": 1})
async def divide(request: web.Request) -> web.Response:
    number: Any = request[ORDER]
    if number["number"] < 0:
        await asyncio.Event().wait()
    return web.json_response({"result": 1 / number["number"]})


@pytest.fixture
def other(aiohttp_client, monkeypatch):
    """Start an application with a row of the other API; return its client."""
    native = routes.rows

    def rows(app):
        row = Route("POST", "/other/divide", divide, api=OTHER, tag="images", operation="divide")
        return *native(app), row

    async def start(**settings: Any) -> Any:
        monkeypatch.setattr(routes, "rows", rows)
        config = Config(data_dir="", api_keys=Keys(f"anna:{KEY}"), **settings)
        return await aiohttp_client(create_app(config, FakeEngine()))

    return start


async def failed(answer: Any) -> str:
    """Return the code of an error answer after a look at its form."""
    assert answer.content_type == "application/failure+json"
    body = await answer.json()
    assert body.keys() == {"message", "request"}
    assert body["request"] == answer.headers["X-Request-ID"]
    return str(body["message"].partition(":")[0])


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "code"),
    [
        ("POST", "/other/divide", {"json": {"number": "x"}}, 400, "validation_error"),
        ("POST", "/other/divide", {"data": b"x"}, 415, "unsupported_media_type"),
        ("POST", "/other/divide", {"json": {}, "headers": {}}, 401, "unauthorized"),
        ("POST", "/other/divide", {"json": {"number": -1}}, 408, "timeout"),
        ("POST", "/other/divide", {"json": {"number": 0}}, 500, "internal_error"),
        ("POST", "/other/divide", {"headers": {"Expect": "a miracle"}}, 417, "expectation_failed"),
        ("GET", "/other/divide", {}, 405, "method_not_allowed"),
        ("GET", "/other", {}, 404, "not_found"),
        ("GET", "/another/one", {}, 404, "not_found"),
        ("GET", "/other/nothing?here=1", {}, 404, "not_found"),
    ],
)
async def test_every_error_of_an_api_has_its_form(other, method, path, *, more, status, code):
    """Errors of the handler, of the middlewares and of the router alike."""
    client = await other(request_timeout_seconds=0.05)
    async with client.request(method, path, **{"headers": BEARER} | more) as answer:
        assert (await failed(answer), answer.status) == (code, status)


@pytest.mark.parametrize("path", ["/others", "/nothing", "/jobs/other"])
async def test_other_paths_have_the_native_form(other, path):
    """A prefix ends with a segment of the path."""
    client = await other()
    async with client.get(path, headers=BEARER) as answer:
        assert answer.content_type == "application/problem+json"


async def test_the_headers_of_an_error_are_the_same_in_every_form(other):
    """401 names the scheme and 405 the methods, whatever the body looks like."""
    client = await other()
    async with client.post("/other/divide", json={}) as answer:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    async with client.get("/other/divide", headers=BEARER) as answer:
        assert answer.headers["Allow"] == "POST"


async def test_the_description_has_the_form_of_each_api(other):
    """Its errors are described with its media type, schema and examples."""
    client = await other()
    paths = json.loads(openapi.current(client.app))["paths"]
    (content,) = paths["/other/divide"]["post"]["responses"]["401"]["content"].items()
    assert content[0] == "application/failure+json"
    assert content[1]["schema"] == {"$ref": "#/components/schemas/Failure"}
    assert content[1]["examples"]["unauthorized"]["value"]["message"].startswith("unauthorized: ")
    native = paths["/generate"]["post"]["responses"]["401"]
    assert native == {"$ref": "#/components/responses/unauthorized"}
