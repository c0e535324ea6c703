"""The body of a request that may bring images, whatever its form and size."""

import json
import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

from aiohttp import hdrs, web

from service.config.table import Config
from service.errors import BodyTooLarge
from service.http.body import (
    arriving,
    check_content_encoding,
    check_content_type,
    parsed_text,
    unpacked,
)
from service.http.middleware.auth import caller_of
from service.http.state import CONFIG, INPUTS
from service.http.uploads import long_texts, multipart
from service.http.uploads.sent import HELD, Held
from service.jobs.inputs.base import NAMES, Receiver, Upload
from service.system.executors import STORAGE, UPLOADS

PIECE: Final = 2**18
"""Bytes that are written at a time."""

PACKED: Final = (
    "A body with a Content-Encoding must not be larger than MAX_BODY_BYTES; send images without it."
)
BASE64: Final = 4 / 3
"""Characters of base64 for each byte."""

SENT: Final = web.RequestKey("sent", bytes)
"""JSON that tells the body from another one as it was sent, for idempotency keys."""


def body_bytes(config: Config) -> int:
    """Return the most bytes of a body that may bring every image that a job can have."""
    return int(len(NAMES) * config.max_image_bytes * BASE64) + config.max_body_bytes


async def body(request: web.Request) -> dict[str, Any]:
    """Return the fields of a body in JSON or multipart/form-data.

    Images are texts in base64, or ``Sent``; ``taking.taken`` takes both. A large body is
    received to the input store and read in a thread.

    Raises:
        ServiceError: as ``read_json`` and ``InputStore.receive`` say.

    """
    form = request.content_type == multipart.MEDIA_TYPE
    boundary = multipart.boundary_of(request.headers[hdrs.CONTENT_TYPE]) if form else b""
    if not form:
        check_content_type(request, or_kind=multipart.MEDIA_TYPE)
    check_content_encoding(request)
    most = request.app[CONFIG].max_body_bytes
    async with arriving(request):
        pieces = _pieces(request)
        small = await _gathered(pieces, most + 1)
        if len(small) > most:
            if hdrs.CONTENT_ENCODING in request.headers:
                raise BodyTooLarge(PACKED)
            upload = await _received(request, small, pieces)
    if len(small) > most:
        request[SENT] = _named(secrets.token_hex() if form else upload.digest)
        read = partial(_read, upload.read, boundary, most)
        return await UPLOADS.run_for(caller_of(request), read)
    if form:
        request[SENT] = _named(secrets.token_hex())  # The boundary is another one each time.
        return _read(lambda: small, boundary, most)
    try:
        text = unpacked(request, small, most)
    except web.HTTPRequestEntityTooLarge as error:
        raise BodyTooLarge(PACKED) from error
    request[SENT] = text
    return parsed_text(text)


def _read(again: Callable[[], bytes], boundary: bytes, most: int) -> dict[str, Any]:
    data = again()
    if boundary:
        return multipart.read(data, boundary, again, most)
    return long_texts.read(data, again, most)


def _named(digest: str) -> bytes:
    return json.dumps({"body": digest}).encode()


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    """Yield a body as it arrives, up to what the route allows."""
    size = 0
    while piece := await request.content.readany():
        size += len(piece)
        if size > request.client_max_size:
            raise web.HTTPRequestEntityTooLarge(request.client_max_size, size)
        yield piece


async def _gathered(pieces: AsyncIterator[bytes], least: int) -> bytes:
    """Return the next bytes: ``least`` or more of them, or all."""
    found = bytearray()
    async for piece in pieces:
        found += piece
        if len(found) >= least:
            break
    return bytes(found)


async def _received(request: web.Request, first: bytes, pieces: AsyncIterator[bytes]) -> Upload:
    """Write a body to the input store as it arrives; a broken one leaves nothing."""
    owner, held = caller_of(request), request[HELD]
    with request.app[INPUTS].receive(owner) as receiver:
        piece = first
        while piece:
            await STORAGE.run_for(owner, partial(receiver.write, piece))
            piece = await _gathered(pieces, PIECE)
        return await STORAGE.run_for(owner, partial(_done, receiver, held))


def _done(receiver: Receiver, held: Held) -> Upload:
    return held.add(receiver.done())
