"""``POST /sdapi/v1/img2img``: an image of AUTOMATIC1111's clients redrawn, whole or in part."""

from typing import Final

from aiohttp import web

from service.http.compat.reading import load
from service.http.compat.translation import in_words_of
from service.http.schema.decorators import described_body, docs, response_schema
from service.http.sdapi.generation.drawing import ERRORS, NAMES, drawn
from service.http.sdapi.generation.redrawing import redrawn
from service.http.sdapi.generation.requests import IMAGE_TO_IMAGE, Answer
from service.http.submission import PARAMETER
from service.http.uploads.receiving import body
from service.http.uploads.taking import REFUSALS as UPLOAD_REFUSALS
from service.http.uploads.taking import taken

EXAMPLE: Final = {"prompt": "a lighthouse at dusk", "init_images": ["iVBORw0KGgo="], "seed": 42}


@described_body(IMAGE_TO_IMAGE, example=EXAMPLE)
@docs(
    summary="Redraw an image, or a part of it, as AUTOMATIC1111's web UI does.",
    description=(
        "As `txt2img`, without a second pass. Without `width` and `height` the image's own size "
        "counts. With `inpaint_full_res` and a mask the answer has the size of the image."
    ),
    parameters=[PARAMETER],
    errors=(*ERRORS, *UPLOAD_REFUSALS),
)
@response_schema(Answer(), 200, description="The images.")
async def image_to_image(request: web.Request) -> web.Response:
    """Answer with the images and what is known of them."""
    sent = load(IMAGE_TO_IMAGE, await body(request))
    values, told = redrawn(sent)
    given = {"image": sent["init_images"][0]}
    if sent["mask"]:
        given["mask"] = sent["mask"][0]
    with in_words_of(NAMES):
        images = await taken(request, given)
    return await drawn(request, sent, {**values, **images}, told)
