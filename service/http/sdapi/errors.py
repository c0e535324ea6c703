"""Error form of the AUTOMATIC1111 API: the four fields of its own answers."""

from typing import Final

from aiohttp import web
from marshmallow import Schema, fields

from service.errors import MethodNotAllowed, NotFound, ServiceError, Unauthorized
from service.http.compat.errors import rendered
from service.http.route import Api, ErrorFacts
from service.http.schema.answers import described
from service.telemetry import labels

WORDS: Final = {
    NotFound: "Not Found",
    MethodNotAllowed: "Method Not Allowed",
    Unauthorized: "Incorrect username or password",
}
"""Details that clients compare with, in AUTOMATIC1111's words; ``errors`` then has ours."""


class Refused(Schema):
    """An error, as AUTOMATIC1111 answers it."""

    error = described(fields.String, "Kind of error.", "Validation Error")
    detail = described(
        fields.String, "What went wrong this time, and how to fix it.", "Sampler not found"
    )
    body = described(fields.String, "Always empty: nothing of a request is repeated.", "")
    errors = described(fields.String, "What went wrong, once more.", "")


def refused(error: ServiceError, facts: ErrorFacts) -> web.Response:
    """Return ``error`` in AUTOMATIC1111's form."""
    del facts
    body = {
        "error": error.title,
        "detail": WORDS.get(type(error), error.detail),
        "body": "",
        "errors": error.detail,
    }
    return rendered(error, body)


SDAPI: Final = Api(
    name=labels.SDAPI,
    prefixes=("/sdapi", "/internal", "/queue", "/config"),
    basic=True,
    render_error=refused,
    error_schema=Refused,
)
