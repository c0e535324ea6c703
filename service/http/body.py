"""Reading a JSON body: everything that is wrong with it becomes one of our errors."""

import asyncio
import codecs
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from aiohttp import hdrs, web

from service.errors import (
    RequestTimedOut,
    UnsupportedEncoding,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.http.schema.fields import REPEATED
from service.http.state import CONFIG, EXPECTED

log = structlog.get_logger(__name__)

UTF_8 = codecs.lookup("utf-8-sig").name
"""Looked up now: Python imports a codec from its file at the first use, and a service that is
short of file descriptors could not."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

GZIP, ZLIB, DEFLATE = 31, 15, -15
"""What zlib calls these formats (wbits)."""


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
    check_content_type(request)
    check_content_encoding(request)
    async with arriving(request):
        return await request.read()


def parsed(request: web.Request, body: bytes) -> dict[str, Any]:
    """Return the JSON object that a received body is; of a large one in a thread.

    Raises:
        ValidationFailed: it is no UTF-8, no JSON or no object.
        HTTPRequestEntityTooLarge: unpacked it is.

    """
    return parsed_text(unpacked(request, body, request.client_max_size))


def parsed_text(text: bytes) -> dict[str, Any]:
    """Return the JSON object that a text is.

    Raises:
        ValidationFailed: it is no UTF-8, no JSON or no object.

    """
    try:
        found = json.loads(text.decode(UTF_8), object_pairs_hook=once)
    # ValueError also covers UnicodeDecodeError and integers of more than 4300 digits.
    except (ValueError, RecursionError) as error:
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


@asynccontextmanager
async def arriving(request: web.Request) -> AsyncIterator[None]:
    """Let a body arrive; a client that sends it byte by byte holds no place until its deadline.

    A client that expects 100 Continue gets it now: all that can be known without
    the body has been checked.

    Raises:
        RequestTimedOut: it does not arrive in time.
        ValidationFailed: it ends too early.

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
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise RequestTimedOut(
            f"The body took more than {seconds:g} s to arrive (BODY_TIMEOUT_SECONDS)."
        ) from error
    except web.RequestPayloadError as error:
        raise _not_json(error) from error


def unpacked(request: web.Request, body: bytes, most: int) -> bytes:
    """Return what was packed: all of it, whole, and no more than ``most`` bytes.

    Raises:
        ValidationFailed: it is damaged, ends too early, or something else follows.
        HTTPRequestEntityTooLarge: it has more.

    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    if encoding not in {"gzip", "deflate"}:
        return body
    try:
        return _inflated(body, encoding, most)
    except zlib.error as error:
        log.info("request_malformed", error=web.RequestPayloadError.__name__)
        raise _not_json(web.RequestPayloadError()) from error


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


def check_content_type(request: web.Request, or_kind: str = "") -> None:
    """Refuse a body that is declared to be something else than JSON, or nothing.

    ``or_kind`` is another type that the caller of this function reads, for the error.
    """
    kind = request.content_type
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        kinds = " or ".join(filter(None, ("application/json", or_kind)))
        raise UnsupportedMediaType(f"Send the body as Content-Type: {kinds}.")
    charset = request.charset or "utf-8"
    try:
        known = codecs.lookup(charset).name in ("utf-8", "ascii")
    except (LookupError, ValueError):
        known = False
    if not known:
        raise ValidationFailed({"body": ["must be JSON in UTF-8; leave the charset out"]})


def check_content_encoding(request: web.Request) -> None:
    """Refuse a body that is packed in a way that nobody here unpacks."""
    # aiohttp takes an encoding that it does not know, or a list of them, for none.
    encoding = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, [])).strip().lower()
    if encoding and encoding not in UnsupportedEncoding.known:
        raise UnsupportedEncoding


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; a value that is given twice is ``REPEATED``."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        found[name] = REPEATED if name in found else value
    return found
