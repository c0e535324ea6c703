"""``POST /sdapi/v1/extra-single-image`` and ``extra-batch-images``: images enlarged by Lanczos."""

import base64
import json
from collections.abc import Mapping, Sequence
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
from service.http.sdapi.generation.fields import Images, NamedImages, flag, name, number
from service.http.sdapi.generation.hires import LANCZOS
from service.http.sdapi.tasks import caller_of
from service.http.state import CONFIG
from service.http.uploads.receiving import body
from service.http.uploads.taking import REFUSALS, TAKEN, Taken, taken, taken_alone
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

MOST_IMAGES: Final = 32
"""Of one request; MAX_IMAGE_PIXELS is the limit of their answer, which is in memory as a whole."""

KINDS: Final = "PNG, JPEG, WebP or AVIF in base64, with or without the beginning of a data URL"


def _side(text: str) -> RealNumber:
    return RealNumber(
        low=1, high=LONGEST_SIDE, example=512, load_default=512, metadata={"description": text}
    )


SHARED: Final = {
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
}
"""Fields of both requests: the size, and how an image gets it."""

ExtraImageRequest: Final = LooseSchema.from_dict(
    {"image": Images(f"A {KINDS}.", one=True), **SHARED}, name="ExtraImageRequest"
)
ExtraImagesRequest: Final = LooseSchema.from_dict(
    {
        "imageList": NamedImages(
            f"Images: `data` of each is a {KINDS}; `name` changes nothing.", most=MOST_IMAGES
        ),
        **SHARED,
    },
    name="ExtraImagesRequest",
)
ONE: Final = ExtraImageRequest()
SEVERAL: Final = ExtraImagesRequest()
FILE: Final = "iVBORw0KGgo="
HOW: Final = {"upscaling_resize": 2, "upscaler_1": LANCZOS}

INFO: Final = described(
    fields.String,
    "What was done, and what was not done as asked.",
    "<p>Postprocess upscale by: 2, Postprocess upscaler: Lanczos</p>",
)
ExtraImageAnswer: Final = LooseSchema.from_dict(
    {
        "html_info": INFO,
        "image": described(fields.String, "The image as base64, without a prefix.", "iVBORw0KGgo…"),
    },
    name="ExtraImageAnswer",
)
ExtraImagesAnswer: Final = LooseSchema.from_dict(
    {
        "html_info": INFO,
        "images": described(
            partial(fields.List, fields.String()),
            "The images as base64, without a prefix, in the order of the request.",
            ["iVBORw0KGgo…"],
        ),
    },
    name="ExtraImagesAnswer",
)
ERRORS: Final = (ValidationFailed, Overloaded, *REFUSALS)


@described_body(ONE, example={"image": FILE, **HOW})
@docs(
    summary="Return an image in another size, enlarged without a model.",
    description=(
        "The file holds nothing but pixels, in the format of `samples_format`. The image and the "
        "answer may have MAX_IMAGE_PIXELS at most."
    ),
    errors=ERRORS,
)
@response_schema(ExtraImageAnswer(), 200, description="The image.")
async def extra_single_image(request: web.Request) -> web.Response:
    """Answer with the image in another size; nothing of it is kept."""
    sent = load(ONE, await body(request))
    target, told = _target(sent)
    if not sent["image"]:
        raise ValidationFailed({"image": ["is required: an image in base64"]})
    await taken(request, {"image": sent["image"][0]})
    (file,) = await _files(request, [request[TAKEN]["image"]], target)
    return await _answer(request, {"html_info": told, "image": file})


@described_body(SEVERAL, example={"imageList": [{"data": FILE, "name": "boat.png"}], **HOW})
@docs(
    summary="Return several images in another size, enlarged without a model.",
    description=(
        "As `extra-single-image` does it with each. The images of the answer may have "
        "MAX_IMAGE_PIXELS together."
    ),
    errors=ERRORS,
)
@response_schema(ExtraImagesAnswer(), 200, description="The images.")
async def extra_batch_images(request: web.Request) -> web.Response:
    """Answer with the images in another size; nothing of them is kept."""
    sent = load(SEVERAL, await body(request))
    target, told = _target(sent)
    images = [await _entry(request, *each) for each in enumerate(sent["imageList"], 1)]
    files = await _files(request, images, target)
    return await _answer(request, {"html_info": told, "images": files})


async def _entry(request: web.Request, place: int, value: Any) -> Taken:
    """Return one image of a list; what is wrong with it is told with its place."""
    try:
        return await taken_alone(request, value)
    except ValueError as error:
        raise ValidationFailed({"imageList": [f"entry {place}: {error}"]}) from error


async def _files(request: web.Request, images: Sequence[Taken], target: Target | None) -> list[str]:
    """Return images in another size, as files in base64, one after the other."""
    _demand_pixels(images, target, request.app[CONFIG].max_image_pixels)
    caller = caller_of(request)
    held = request.app[options.OPTIONS].of(caller)
    return [
        await UPLOADS.run_for(caller, partial(_enlarged, each, target, held)) for each in images
    ]


async def _answer(request: web.Request, found: Mapping[str, Any]) -> web.Response:
    """Return an answer; megabytes of JSON take longer than the event loop may stand still."""
    text = await UPLOADS.run_for(caller_of(request), partial(json.dumps, found))
    return web.Response(text=text, content_type="application/json")


def _demand_pixels(images: Sequence[Taken], target: Target | None, most: int) -> None:
    """Refuse what gives too many pixels, before they are made."""
    sizes = [(each.about.width, each.about.height) for each in images]
    if target is not None:
        sizes = [target.size(*each) for each in sizes]
    limit = f"must give at most {most} pixels (MAX_IMAGE_PIXELS)"
    for wide, high in sizes:
        if wide * high > most:
            field = "upscaling_resize" if target and target.scale else "upscaling_resize_w"
            raise ValidationFailed({field: [f"{limit}, and gives {wide}x{high}"]})
    if (pixels := sum(wide * high for wide, high in sizes)) > most:
        fault = f"{limit} together, and gives {pixels}; send fewer images at a time"
        raise ValidationFailed({"imageList": [fault]})


def _enlarged(took: Taken, target: Target | None, held: Mapping[str, Any]) -> str:
    """Return an image in another size, as a file in base64."""
    image = decode.colours(took.upload.read())
    if target is not None:
        image = upscaled(image, target)
    media_type = options.FORMATS[held.get(options.FORMAT, "png")]
    return base64.b64encode(written(image, media_type, held.get(options.QUALITY))).decode("ascii")


def _target(sent: Mapping[str, Any]) -> tuple[Target | None, str]:
    """Return the size that is asked for, None for none, and what is done and what is not."""
    for field in ("upscaler_1", "upscaler_2"):
        if sent[field] not in ("", *UPSCALERS):
            raise ValidationFailed({field: [f"must be one of {', '.join(UPSCALERS)}"]})
    target, done = _size(sent) if sent["upscaler_1"] == LANCZOS else (None, [])
    missing = [f"{field}: this service does not do it" for field in NOT_DONE if sent[field]]
    return target, f"<p>{', '.join([*done, *missing])}</p>"


def _size(sent: Mapping[str, Any]) -> tuple[Target, list[str]]:
    done = f"Postprocess upscaler: {LANCZOS}"
    if sent["resize_mode"] != TO_SIZE:
        scale = sent["upscaling_resize"]
        return Target(scale=scale), [f"Postprocess upscale by: {scale:g}", done]
    wide, high = (int(sent[f"upscaling_resize_{side}"]) for side in "wh")
    target = Target(width=wide, height=high, crop=sent["upscaling_crop"])
    return target, [f"Postprocess upscale to: {wide}x{high}", done]
