"""``POST /sdapi/v1/png-info``: the parameters that an image carries."""

import base64
import binascii
import json
from functools import partial
from typing import Any, Final

from aiohttp import web
from marshmallow import fields

from service.errors import Overloaded, ValidationFailed
from service.http.body import parsed, received
from service.http.compat.reading import LooseSchema
from service.http.schema.answers import described
from service.http.schema.decorators import described_body, docs, response_schema
from service.http.sdapi.tasks import caller_of
from service.http.server.shares import Shares
from service.http.state import CALLER, CONFIG
from service.images import infotext
from service.system.executors import CONVERSIONS

MOST_AT_ONCE: Final = 2
"""Images of a caller that are in memory at a time."""
RETRY_SECONDS: Final = 1.0

READING: Final = web.AppKey("reading", Shares)
"""Images of each caller that are in memory."""

PREFIX: Final = "data:"
LONGEST_PREFIX: Final = 128
LINE_ENDS: Final = b"\r\n"

PngInfoRequest: Final = LooseSchema.from_dict(
    {
        "image": fields.String(
            required=True,
            metadata={
                "description": "A PNG, WebP or JPEG in base64, with or without the beginning of a "
                "data URL; MAX_IMAGE_BYTES at most.",
                "contentEncoding": "base64",
            },
        )
    },
    name="PngInfoRequest",
)
PngInfoAnswer: Final = LooseSchema.from_dict(
    {
        "info": described(
            fields.String, "Text of the parameters; empty for none.", "a cat\nSteps…"
        ),
        "items": described(fields.Dict, "The same by the name of its place.", {"parameters": "…"}),
        "parameters": described(fields.Dict, "What the text says, by name.", {"Steps": "20"}),
    },
    name="PngInfoAnswer",
)
EXAMPLE: Final = {"image": "iVBORw0KGgo="}


@described_body(PngInfoRequest(), example=EXAMPLE)
@docs(
    summary="Return the parameters that an image was made with, as it says itself.",
    errors=(ValidationFailed, Overloaded),
)
@response_schema(PngInfoAnswer(), 200, description="The parameters.")
async def png_info(request: web.Request) -> web.Response:
    """Answer with the parameters of an image; nothing of the image is kept."""
    error = Overloaded(f"{MOST_AT_ONCE} images are being read.", retry_after=RETRY_SECONDS)
    with request.app[READING].one(caller_of(request), error):
        body = await received(request)
        # Megabytes of JSON and base64 take longer than the event loop may stand still.
        read = partial(_read, request, body)
        answer = await CONVERSIONS.run_for(request[CALLER].name, read)
    return web.Response(body=answer, content_type="application/json")


def _read(request: web.Request, body: bytes) -> bytes:
    most = request.app[CONFIG].max_image_bytes
    data = _image(parsed(request, body).get("image"), most)
    try:
        text = infotext.read(data) or ""
    except ValueError as error:
        raise ValidationFailed({"image": [str(error)]}) from error
    found: dict[str, Any] = {"info": text, "items": {}, "parameters": {}}
    if text:
        told = infotext.parsed(text)
        found["items"] = {"parameters": text}
        found["parameters"] = {
            "Prompt": told.prompt,
            "Negative prompt": told.negative_prompt,
            **told.values,
        }
    return json.dumps(found).encode()


def _image(given: Any, most: int) -> bytes:
    """Return the bytes of an image in base64.

    Raises:
        ValidationFailed: it is none, or too large.

    """
    if not isinstance(given, str):
        raise ValidationFailed({"image": ["must be an image in base64"]})
    if given.startswith(PREFIX):
        _, comma, rest = given[:LONGEST_PREFIX].partition(",")
        given = given[LONGEST_PREFIX - len(rest) :] if comma else given
    try:
        # Encoders of mail, which some clients use, break lines.
        data = base64.b64decode(given.encode("ascii").translate(None, LINE_ENDS), validate=True)
    except (binascii.Error, ValueError):
        raise ValidationFailed({"image": ["must be an image in base64"]}) from None
    if len(data) > most:
        limit = f"must have at most {most} bytes (MAX_IMAGE_BYTES)"
        raise ValidationFailed({"image": [limit]})
    return data
