"""``POST /sdapi/v1/txt2img``: a request of AUTOMATIC1111's clients as a job."""

from typing import Final

from aiohttp import web

from service.http.compat.reading import load, read
from service.http.schema.decorators import described_body, docs, response_schema
from service.http.sdapi.generation.drawing import ERRORS, drawn
from service.http.sdapi.generation.hires import second_pass
from service.http.sdapi.generation.requests import TEXT_TO_IMAGE, Answer
from service.http.submission import PARAMETER

EXAMPLE: Final = {"prompt": "a lighthouse at dusk", "steps": 20, "seed": 42}


@described_body(TEXT_TO_IMAGE, example=EXAMPLE)
@docs(
    summary="Make images from a prompt, as AUTOMATIC1111's web UI does.",
    description=(
        "Prompts are in AUTOMATIC1111's syntax. Unknown fields are ignored; `info.warnings` says "
        "what was not done as asked. Interrupted by `POST /sdapi/v1/interrupt` it answers 200 "
        "with the unfinished images. With `enable_hr` a second pass follows in a larger size."
    ),
    parameters=[PARAMETER],
    errors=ERRORS,
)
@response_schema(Answer(), 200, description="The images.")
async def text_to_image(request: web.Request) -> web.Response:
    """Answer with the images and what is known of them."""
    sent = load(TEXT_TO_IMAGE, await read(request))
    hires, told = second_pass(sent)
    return await drawn(request, sent, {"hires": hires}, told)
