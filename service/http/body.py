"""Reading a JSON body: everything that is wrong with it becomes one of our errors."""

import asyncio
import codecs
import json
import zlib
from typing import Any, Final, NoReturn

import structlog
from aiohttp import hdrs, web
from marshmallow import Schema, ValidationError
from webargs.aiohttpparser import AIOHTTPParser

from service.core.limits import RequestLimits
from service.errors import (
    RequestTimedOut,
    UnsupportedEncoding,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.http.schema.fields import REPEATED
from service.http.schema.orders import LimitedSchema
from service.http.state import CONFIG, DISPATCHER, EXPECTED, MODELS
from service.models.served.catalog import DEFAULT

log = structlog.get_logger(__name__)

UTF_8 = codecs.lookup("utf-8-sig").name
"""Looked up now: Python imports a codec from its file at the first use, and a service that is
short of file descriptors could not."""

PARSED: Final = web.RequestKey("parsed", dict[str, Any])
"""The body as JSON, which is read once."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

GZIP, ZLIB, DEFLATE = 31, 15, -15
"""What zlib calls these formats (wbits)."""


class BodyParser(AIOHTTPParser):
    """The parser behind the ``request_schema`` decorators; each application has its own."""

    async def parse(self, argmap: Any, req: Any = None, **more: Any) -> Any:
        """Read the body with the schema of its route, with the limits of the model in it."""
        if isinstance(argmap, LimitedSchema):
            argmap = argmap.within(await self._limits(req, argmap)).of(req)
        return await super().parse(argmap, req, **more)

    async def _limits(self, req: web.Request, schema: Schema) -> RequestLimits:
        """Return the limits and defaults of the model that the body names."""
        req[PARSED] = body = await self.load_json(req, schema)
        named = body.get("model")
        key = req.app[MODELS].find(named if isinstance(named, str) else DEFAULT)
        return req.app[DISPATCHER].limits(key)

    async def load_json(self, req: web.Request, schema: Schema) -> Any:
        """Return the body as a JSON object; raises what ``read_json`` raises."""
        del schema
        return req[PARSED] if PARSED in req else await read_json(req)

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
        raise _not_json(error) from error


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the body as a JSON object; a value that is given twice is ``REPEATED``.

    Raises:
        UnsupportedMediaType: it is declared to be something else, or nothing.
        RequestTimedOut: it does not arrive in time.
        UnsupportedEncoding: it is packed in a way that nobody here unpacks.
        ValidationFailed: it is no UTF-8, no JSON or no object.

    """
    return parsed(request, await received(request))


async def received(request: web.Request) -> bytes:
    """Return the body as it is sent, for ``parsed``.

    Raises:
        ServiceError: as ``read_json`` says, without what is wrong with the JSON.

    """
    _check_content_type(request)
    _check_content_encoding(request)
    try:
        return await _arrived(request)
    except web.RequestPayloadError as error:
        raise _not_json(error) from error


def parsed(request: web.Request, body: bytes) -> dict[str, Any]:
    """Return the JSON object that a received body is; of a large one in a thread.

    Raises:
        ValidationFailed: it is no UTF-8, no JSON or no object.
        HTTPRequestEntityTooLarge: unpacked it is.

    """
    try:
        text = unpacked(request, body).decode(UTF_8)
        found = json.loads(text, object_pairs_hook=_object)
    # ValueError also covers UnicodeDecodeError and integers of more than 4300 digits.
    except (ValueError, RecursionError, web.RequestPayloadError) as error:
        raise _not_json(error) from error
    if not isinstance(found, dict):
        raise ValidationFailed({"body": ['must be a JSON object, e.g. {"prompt": "a boat"}']})
    return found


def _not_json(error: Exception) -> ValidationFailed:
    match error:
        case json.JSONDecodeError():
            reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
        case UnicodeDecodeError():
            reason = f"byte {error.start} is no UTF-8"
        case RecursionError():
            reason = "it is nested too deeply"
        case web.RequestPayloadError():
            reason = "it ends too early, or is not what its Content-Encoding says"
        case _:
            reason = "a number has too many digits"
    return ValidationFailed({"body": [f"must be JSON in UTF-8: {reason}"]})


async def _arrived(request: web.Request) -> bytes:
    """Return the body; a client that sends it byte by byte holds no place until its deadline.

    A client that expects 100 Continue gets it now: all that can be known without
    the body has been checked.
    """
    seconds = request.app[CONFIG].body_timeout_seconds
    if (request.content_length or 0) > request.client_max_size:
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, request.content_length or 0)
    if request.get(EXPECTED) and not request.content.is_eof():
        request[EXPECTED] = ""
        await request.writer.write(CONTINUE)
        request.writer.output_size = 0  # The answer has not begun.
    try:
        async with asyncio.timeout(seconds) as timeout:
            return await request.read()
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise RequestTimedOut(
            f"The body took more than {seconds:g} s to arrive (BODY_TIMEOUT_SECONDS)."
        ) from error


def unpacked(request: web.Request, body: bytes) -> bytes:
    """Return what was packed: all of it, whole, and no more than a body may have.

    Raises:
        RequestPayloadError: it is damaged, ends too early, or something else follows.
        HTTPRequestEntityTooLarge: it has more than a body may have.

    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    if encoding not in {"gzip", "deflate"}:
        return body
    try:
        return _inflated(body, encoding, request.client_max_size)
    except zlib.error as error:
        log.info("request_malformed", error=web.RequestPayloadError.__name__)
        raise web.RequestPayloadError from error


def _inflated(body: bytes, encoding: str, most: int) -> bytes:
    # Some send deflate without the header of zlib, which RFC 9110 wants (8.4.1.2).
    headed = body[:1] and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0
    wbits = GZIP if encoding == "gzip" else ZLIB if headed else DEFLATE
    whole = b""
    while True:
        stream = zlib.decompressobj(wbits)
        whole += stream.decompress(body, most + 1 - len(whole))
        if len(whole) > most:
            raise web.HTTPRequestEntityTooLarge(most, len(whole))
        if not stream.eof:
            raise zlib.error("incomplete")
        body = stream.unused_data
        if not body:
            return whole
        if encoding != "gzip":
            raise zlib.error("more than one stream")


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
