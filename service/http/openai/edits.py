"""``POST /v1/images/edits`` and ``/v1/images/variations``: images redrawn, whole or in part."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from aiohttp import web

from service.errors import ValidationFailed
from service.http.compat.errors import ERRORS
from service.http.middleware.auth import caller_of
from service.http.openai.asking import Asked, asked
from service.http.openai.images import EVENTS, JSON, answered
from service.http.openai.schema import EDIT, VARIATION, OpenAIImages
from service.http.schema.decorators import described_body, docs, response_schema
from service.http.schema.forms import bracketed
from service.http.state import MODELS
from service.http.submission import PARAMETER
from service.http.uploads.receiving import body
from service.http.uploads.taking import REFUSALS, TAKEN, taken
from service.images import infotext
from service.jobs.inputs.base import IMAGE, MASK, Upload
from service.system.executors import UPLOADS

IMAGES: Final = (IMAGE, bracketed(IMAGE))
MASKS: Final = (MASK, "mask_image", bracketed(MASK))
"""Names of the parts of a form that hold an image or a mask; lists come with brackets."""

OPAQUE: Final = (
    "must have transparent parts, which are repainted; leave it out to redraw the whole image"
)
MORE: Final = "image: only the first is used; this service draws from one image."
UNNAMED: Final = "an image"
"""Prompt of a variation of an image that names none."""

STRENGTH: Final = 0.7
"""Of a variation; edits have that of the native API."""


@described_body(EDIT, example={"prompt": "a lighthouse at dusk", "image": "iVBORw0KGgo="})
@docs(
    summary="Redraw an image, or a part of it, as OpenAI's API does.",
    description=(
        "`strength` decides how much is redrawn. With a mask, or an image with transparent parts, "
        "those parts are repainted and the rest stays. The events of a stream begin with "
        "`image_edit`."
    ),
    produces=[JSON, EVENTS],
    parameters=[PARAMETER],
    errors=(*ERRORS, *REFUSALS),
)
@response_schema(OpenAIImages(), 200, description="The finished images.")
async def edit(request: web.Request) -> web.StreamResponse:
    """Answer with the redrawn images, or with a stream of their events."""
    sent, more = _given(await body(request))
    wanted = asked(sent, request.app[MODELS], EDIT)
    values = await taken(request, {name: sent[name] for name in (IMAGE, MASK) if name in sent})
    if MASK in sent:
        if not request[TAKEN][MASK].about.transparent:
            raise ValidationFailed({MASK: [OPAQUE]})
    elif request[TAKEN][IMAGE].about.transparent:
        values |= await taken(request, {MASK: sent[IMAGE]})
    if MASK in values:
        values["mask_invert"] = True
    return await answered(request, _with(wanted, values, more))


@described_body(VARIATION, example={"image": "iVBORw0KGgo=", "n": 2})
@docs(
    summary="Redraw an image, as OpenAI's API does.",
    description=(
        "Where `prompt` is left out, the prompt that the file names counts, as images of this "
        f"service do, else `{UNNAMED}`. `strength` is {STRENGTH} where it is left out."
    ),
    produces=[JSON, EVENTS],
    parameters=[PARAMETER],
    errors=(*ERRORS, *REFUSALS),
)
@response_schema(OpenAIImages(), 200, description="The finished images.")
async def vary(request: web.Request) -> web.StreamResponse:
    """Answer with the redrawn images, or with a stream of their events."""
    sent, more = _given(await body(request))
    wanted = asked(sent, request.app[MODELS], VARIATION)
    values = await taken(request, {IMAGE: sent[IMAGE]})
    if wanted.values["prompt"] is None:
        find = partial(_prompt, request[TAKEN][IMAGE].upload)
        values["prompt"] = await UPLOADS.run_for(caller_of(request), find)
    if wanted.values["strength"] is None:
        values["strength"] = STRENGTH
    return await answered(request, _with(wanted, values, more))


def _given(body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a body with one image and one mask by their names, and whether it had more images."""
    images = [each for name in IMAGES for each in _listed(body.get(name))]
    masks = [each for name in MASKS for each in _listed(body.get(name))]
    rest = {name: value for name, value in body.items() if name not in (*IMAGES, *MASKS)}
    found = {IMAGE: images[:1], MASK: masks[:1]}
    return {**rest, **{name: each[0] for name, each in found.items() if each}}, len(images) > 1


def _listed(value: Any) -> list[Any]:
    listed = value if isinstance(value, list) else [value]
    return [each for each in listed if each not in (None, "")]


def _with(wanted: Asked, values: Mapping[str, Any], more: bool) -> Asked:
    warnings = (*wanted.warnings, MORE) if more else wanted.warnings
    values = {**wanted.values, **values}
    return replace(wanted, values=values, warnings=warnings, events="image_edit")


def _prompt(upload: Upload) -> str:
    """Return the prompt that an image names."""
    try:
        text = infotext.read(upload.read())
    except ValueError:  # AVIF, which names none.
        text = None
    return (infotext.parsed(text).prompt if text else "").strip() or UNNAMED
