"""``POST /sdapi/v1/extra-single-image``: an image enlarged by Lanczos, without a model."""

import base64
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from aiohttp import web
from marshmallow import fields

from service.errors import Overloaded, ValidationFailed
from service.http.compat.reading import LooseSchema, load
from service.http.schema.answers import described
from service.http.schema.decorators import described_body, docs, response_schema
from service.http.schema.fields import RealNumber
from service.http.sdapi import options
from service.http.sdapi.generation.fields import Images, flag, name, number
from service.http.sdapi.generation.hires import LANCZOS
from service.http.sdapi.tasks import caller_of
from service.http.state import CONFIG
from service.http.uploads.receiving import body
from service.http.uploads.taking import REFUSALS, TAKEN, taken
from service.images import decode
from service.images.encode import written
from service.images.upscaling import Target, upscaled
from service.system.executors import UPLOADS

NO_UPSCALER: Final = "None"
UPSCALERS: Final = (NO_UPSCALER, LANCZOS)
"""What ``/upscalers`` lists; clients expect that the first is "None"."""

NOT_DONE: Final = ("gfpgan_visibility", "codeformer_visibility")
TO_SIZE: Final = 1
"""Value of ``resize_mode`` for a size in pixels."""

MOST_TIMES: Final = 8
LONGEST_SIDE: Final = 100_000
"""Of what is asked for; MAX_IMAGE_PIXELS is the limit that counts."""


def _side(text: str) -> RealNumber:
    return RealNumber(
        low=1, high=LONGEST_SIDE, example=512, load_default=512, metadata={"description": text}
    )


ExtraImageRequest: Final = LooseSchema.from_dict(
    {
        "image": Images(
            "A PNG, JPEG, WebP or AVIF in base64, with or without the beginning of a data URL.",
            one=True,
        ),
        "resize_mode": number("0 for `upscaling_resize`, 1 for a size in pixels.", 0),
        "upscaling_resize": RealNumber(
            low=0.01,
            high=MOST_TIMES,
            example=2,
            load_default=2,
            metadata={"description": "Width and height of the answer, in those of the image."},
        ),
        "upscaling_resize_w": _side("Width in pixels."),
        "upscaling_resize_h": _side("Height in pixels."),
        "upscaling_crop": flag("Cut an image of another shape to that size.", default=True),
        "upscaler_1": name("`Lanczos`; with `None` the image stays as it is.", LANCZOS),
        "upscaler_2": name("The same, and changes nothing: there is one upscaler.", NO_UPSCALER),
        "gfpgan_visibility": number("Not available here; `html_info` says so.", 0),
        "codeformer_visibility": number("Not available here; `html_info` says so.", 0),
    },
    name="ExtraImageRequest",
)
REQUEST: Final = ExtraImageRequest()
EXAMPLE: Final = {"image": "iVBORw0KGgo=", "upscaling_resize": 2, "upscaler_1": LANCZOS}

ExtraImageAnswer: Final = LooseSchema.from_dict(
    {
        "html_info": described(
            fields.String,
            "What was done, and what was not done as asked.",
            "<p>Postprocess upscale by: 2, Postprocess upscaler: Lanczos</p>",
        ),
        "image": described(fields.String, "The image as base64, without a prefix.", "iVBORw0KGgo…"),
    },
    name="ExtraImageAnswer",
)


@described_body(REQUEST, example=EXAMPLE)
@docs(
    summary="Return an image in another size, enlarged without a model.",
    description=(
        "The file holds nothing but pixels, in the format of `samples_format`. The image and the "
        "answer may have MAX_IMAGE_PIXELS at most."
    ),
    errors=(ValidationFailed, Overloaded, *REFUSALS),
)
@response_schema(ExtraImageAnswer(), 200, description="The image.")
async def extra_single_image(request: web.Request) -> web.Response:
    """Answer with the image in another size; nothing of it is kept."""
    sent = load(REQUEST, await body(request))
    target, told = _target(sent)
    if not sent["image"]:
        raise ValidationFailed({"image": ["is required: an image in base64"]})
    await taken(request, {"image": sent["image"][0]})
    held = request.app[options.OPTIONS].of(caller_of(request))
    enlarge = partial(_enlarged, request, target, held)
    file = await UPLOADS.run_for(caller_of(request), enlarge)
    answer = {"html_info": f"<p>{', '.join(told)}</p>", "image": file}
    return web.json_response(answer)


def _enlarged(request: web.Request, target: Target | None, held: Mapping[str, Any]) -> str:
    """Return the image of a request in another size, as a file in base64."""
    took, most = request[TAKEN]["image"], request.app[CONFIG].max_image_pixels
    if target is not None:
        wide, high = target.size(took.about.width, took.about.height)
        if wide * high > most:
            field = "upscaling_resize" if target.scale else "upscaling_resize_w"
            limit = f"must give at most {most} pixels (MAX_IMAGE_PIXELS), and gives {wide}x{high}"
            raise ValidationFailed({field: [limit]})
    image = decode.colours(took.upload.read())
    if target is not None:
        image = upscaled(image, target)
    media_type = options.FORMATS[held.get(options.FORMAT, "png")]
    return base64.b64encode(written(image, media_type, held.get(options.QUALITY))).decode("ascii")


def _target(sent: Mapping[str, Any]) -> tuple[Target | None, list[str]]:
    """Return the size that is asked for, None for none, and what is done and what is not."""
    for field in ("upscaler_1", "upscaler_2"):
        if sent[field] not in ("", *UPSCALERS):
            raise ValidationFailed({field: [f"must be one of {', '.join(UPSCALERS)}"]})
    missing = [f"{field}: this service does not do it" for field in NOT_DONE if sent[field]]
    if sent["upscaler_1"] != LANCZOS:
        return None, missing
    done = f"Postprocess upscaler: {LANCZOS}"
    if sent["resize_mode"] != TO_SIZE:
        scale = sent["upscaling_resize"]
        return Target(scale=scale), [f"Postprocess upscale by: {scale:g}", done, *missing]
    wide, high = (int(sent[f"upscaling_resize_{side}"]) for side in "wh")
    target = Target(width=wide, height=high, crop=sent["upscaling_crop"])
    return target, [f"Postprocess upscale to: {wide}x{high}", done, *missing]
