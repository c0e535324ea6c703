"""``POST /v1/images/generations``, and the answers to every request for images."""

from dataclasses import replace
from functools import partial
from typing import Final

from aiohttp import web

from service.errors import ValidationFailed
from service.http.compat.errors import ERRORS
from service.http.compat.reading import read
from service.http.compat.translation import in_words_of, translate
from service.http.finished import generated
from service.http.openai.answering import answer, images_answer
from service.http.openai.asking import Asked, asked
from service.http.openai.files import links
from service.http.openai.schema import EXAMPLE, REQUEST, OpenAIImages
from service.http.openai.stream import stream
from service.http.schema.decorators import described_body, docs, response_schema
from service.http.state import DURABLE, MODELS
from service.http.submission import JOB_ID, PARAMETER, REPLAYED, key_of, submit
from service.jobs.durable.live_job import Durability
from service.jobs.service import JobHandle

JSON: Final = "application/json"
NO_LINKS: Final = (
    "must be b64_json: links need kept images, and this service keeps none (DATA_DIR is empty)"
)
EVENTS: Final = "text/event-stream"


@described_body(REQUEST, example=EXAMPLE)
@docs(
    summary="Make images from a prompt, as OpenAI's API does.",
    description=(
        "With `stream` the answer is server-sent events: up to `partial_images` times "
        "`image_generation.partial_image`, then `image_generation.completed` for each image. "
        "An error in between is the event `error`. Fields that are unknown, or that this service "
        "cannot honour, are named in `warnings`."
    ),
    produces=[JSON, EVENTS],
    parameters=[PARAMETER],
    errors=ERRORS,
)
@response_schema(OpenAIImages(), 200, description="The finished images.")
async def generate(request: web.Request) -> web.StreamResponse:
    """Answer with images, or with a stream of their events."""
    return await answered(request, asked(await read(request), request.app[MODELS]))


async def answered(request: web.Request, wanted: Asked) -> web.StreamResponse:
    """Draw what is asked for, and answer as it is asked for."""
    found = translate(request, wanted.values, names=wanted.names)
    wanted = replace(
        wanted,
        warnings=(*wanted.warnings, *found.warnings),
        size=found.order.generation.output_size,
    )
    if wanted.stream:
        return await stream(request, wanted)
    if wanted.url:
        return await _linked(request, wanted)
    durability = Durability.NONE if key_of(request) is None else Durability.KEYED
    build = partial(images_answer, asked=wanted)
    with in_words_of(wanted.names):
        made = await generated(request, durability, wanted.form, build)
    return _answer(made.built, made.handle)


async def _linked(request: web.Request, wanted: Asked) -> web.Response:
    """Answer with links: the images are kept, and nobody waits for their encoding."""
    if DURABLE not in request.app:
        raise ValidationFailed({"response_format": [NO_LINKS]})
    with in_words_of(wanted.names):
        handle = await submit(request, Durability.KEYED)
    with handle:
        done = await handle.wait()
    details = {"created": done.created_at, **(done.metadata or {})}
    data = [{"url": each} for each in links(request, done, wanted)]
    return _answer(answer(data, details, wanted), handle)


def _answer(body: bytes, handle: JobHandle) -> web.Response:
    found = web.Response(body=body, content_type=JSON, headers={JOB_ID: handle.stored.id})
    if handle.replayed:
        found.headers[REPLAYED] = "true"
    return found
