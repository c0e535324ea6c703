"""Reading a JSON body: everything that is wrong with it becomes one of our errors."""

import asyncio
import codecs
import json
from typing import Any, NoReturn

from aiohttp import hdrs, web
from marshmallow import Schema, ValidationError
from webargs.aiohttpparser import AIOHTTPParser

from service.errors import (
    RequestTimedOut,
    UnsupportedEncoding,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.http.fields import REPEATED
from service.http.job_orders import GenerateSchema
from service.http.keys import CONFIG

UTF_8 = codecs.lookup("utf-8-sig").name
"""Looked up now: Python imports a codec from its file at the first use, and a service that is
short of file descriptors could not."""


class BodyParser(AIOHTTPParser):
    """The parser behind the ``request_schema`` decorators; each application has its own."""

    async def parse(self, argmap: Any, req: Any = None, **more: Any) -> Any:
        """Read the body with the schema of its route; one of them asks what the client prefers."""
        schema = argmap.of(req) if isinstance(argmap, GenerateSchema) else argmap
        return await super().parse(schema, req, **more)

    async def load_json(self, req: web.Request, schema: Schema) -> Any:
        """Return the body as a JSON object.

        Raises:
            UnsupportedMediaType: it is declared to be something else, or nothing.
            RequestTimedOut: it does not arrive in time.
            UnsupportedEncoding: it is packed in a way that nobody here unpacks.
            ValidationFailed: it is no UTF-8, no JSON or no object.

        """
        del schema
        _check_content_type(req)
        _check_content_encoding(req)
        try:
            text = (await _arrived(req)).decode(UTF_8)
            body = json.loads(text, object_pairs_hook=_object)
        # ValueError also covers UnicodeDecodeError and integers of more than 4300 digits.
        except (ValueError, RecursionError, web.RequestPayloadError) as error:
            self._handle_invalid_json_error(error, req)
        if not isinstance(body, dict):
            raise ValidationFailed({"body": ['must be a JSON object, e.g. {"prompt": "a boat"}']})
        return body

    def handle_error(
        self, error: ValidationError, req: web.Request, schema: Schema, **kwargs: Any
    ) -> NoReturn:
        """Raise our error; webargs wraps the messages in the place the data came from."""
        del req, schema, kwargs
        raise ValidationFailed(error.messages_dict["json"]) from error

    def _handle_invalid_json_error(
        self, error: Exception, req: web.Request, *args: Any, **kwargs: Any
    ) -> NoReturn:
        del req, args, kwargs
        match error:
            case json.JSONDecodeError():
                reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
            case UnicodeDecodeError():
                reason = f"byte {error.start} is no UTF-8"
            case RecursionError():
                reason = "it is nested too deeply"
            case web.RequestPayloadError():
                reason = "it is not what its Content-Encoding and Transfer-Encoding say"
            case _:
                reason = "a number has too many digits"
        raise ValidationFailed({"body": [f"must be JSON in UTF-8: {reason}"]}) from error


async def _arrived(request: web.Request) -> bytes:
    """Return the body; a client that sends it byte by byte holds no place until its deadline."""
    seconds = request.app[CONFIG].body_timeout_seconds
    try:
        async with asyncio.timeout(seconds) as timeout:
            return await request.read()
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise RequestTimedOut(
            f"The body took more than {seconds:g} s to arrive (BODY_TIMEOUT_SECONDS)."
        ) from error


def _check_content_type(request: web.Request) -> None:
    kind = request.content_type
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise UnsupportedMediaType("Send the body as Content-Type: application/json.")
    charset = request.charset or "utf-8"
    try:
        known = codecs.lookup(charset).name in ("utf-8", "ascii")
    except (LookupError, ValueError):
        known = False
    if not known:
        raise ValidationFailed({"body": ["must be JSON in UTF-8; leave the charset out"]})


def _check_content_encoding(request: web.Request) -> None:
    # aiohttp takes an encoding that it does not know, or a list of them, for none.
    encoding = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, [])).strip().lower()
    if encoding and encoding not in UnsupportedEncoding.known:
        raise UnsupportedEncoding


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        found[name] = REPEATED if name in found else value
    return found
