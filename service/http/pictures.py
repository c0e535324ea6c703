"""Finished pictures as files and as answers; all of it is work for a thread."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from PIL import Image, PngImagePlugin

from service.diffusion.generation import GenerationRequest, JobFinished, Picture
from service.jobs.results import Encoded

# Pillow imports its formats at the first save, which a service without a file descriptor to
# spare, or with its disk gone, can no longer do.
Image.init()

Z_RLE: Final = 3
"""zlib strategy: 15 ms for 512x512 at the size that the default reaches in 44-82 ms."""

MEDIA_TYPES: Final = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
JPEG_QUALITY: Final = 90

INFOTEXT_SAMPLERS: Final = {
    "ddim": "DDIM",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_karras": "DPM++ 2M Karras",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "lcm": "LCM",
    "pndm": "PLMS",
    "unipc": "UniPC",
}
"""Names that tools know from AUTOMATIC1111's files."""


def infotext(request: GenerationRequest, picture: Picture, model_version: str) -> str:
    """Return the parameters as AUTOMATIC1111 writes them, the form that other tools read."""
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    parameters = {
        "Steps": request.steps,
        "Sampler": INFOTEXT_SAMPLERS.get(request.sampler, request.sampler),
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": picture.seed,
        "Size": f"{picture.width}x{picture.height}",
        "Model": _quoted(model_version),
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in parameters.items()))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return json.dumps(value) if set(value) & set(',:\n"') else value


def png(
    picture: Picture,
    request: GenerationRequest,
    model_version: str,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the picture as PNG with the text chunk ``parameters``, and ``metadata`` as JSON."""
    chunks = PngImagePlugin.PngInfo()
    # add_text writes tEXt for Latin-1 and falls back to iTXt for everything else.
    chunks.add_text("parameters", infotext(request, picture, model_version))
    if metadata is not None:
        chunks.add_text("metadata", json.dumps(metadata))
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.pixels)
    file = io.BytesIO()
    image.save(file, "PNG", compress_type=Z_RLE, pnginfo=chunks)
    return file.getvalue()


def json_answer(
    pictures: tuple[Picture, ...], request: GenerationRequest, metadata: Mapping[str, Any]
) -> bytes:
    """Return the JSON body of an answer; several pictures also come as a list."""
    return json_body([png(one, request, metadata["model_version"]) for one in pictures], metadata)


def json_body(files: Sequence[bytes], metadata: Mapping[str, Any]) -> bytes:
    """Return the JSON body of an answer with these PNG files."""
    encoded = [base64.b64encode(file).decode("ascii") for file in files]
    body: dict[str, Any] = {"image_base64": encoded[0], "metadata": metadata}
    if len(encoded) > 1:
        body["images_base64"] = encoded
    return json.dumps(body).encode()


def file_answer(
    pictures: tuple[Picture, ...],
    request: GenerationRequest,
    metadata: Mapping[str, Any],
    media_type: str,
) -> bytes:
    """Return the body of an answer with one picture, as a file."""
    if media_type == MEDIA_TYPES["png"]:
        return png(pictures[0], request, metadata["model_version"], metadata)
    one = pictures[0]
    return _saved(Image.frombytes("RGB", (one.width, one.height), one.pixels), media_type)


def files(
    result: JobFinished, request: GenerationRequest, metadata: Mapping[str, Any]
) -> list[Encoded]:
    """Return the pictures of a job as they are kept: PNG, with everything known about them."""
    return [
        Encoded(
            data=png(picture, request, metadata["model_version"], metadata),
            media_type=MEDIA_TYPES["png"],
        )
        for picture in result.pictures
    ]


def preview(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the event of a preview says: its pixels as a JPEG of two kilobytes or so."""
    image = Image.frombytes("RGB", (seen["width"], seen["height"]), seen["pixels"])
    file = _saved(image, MEDIA_TYPES["jpeg"])
    said = {name: value for name, value in seen.items() if name != "pixels"}
    encoded = base64.b64encode(file).decode("ascii")
    return {**said, "media_type": MEDIA_TYPES["jpeg"], "image_base64": encoded}


def converted(kept: bytes, media_type: str) -> bytes:
    """Return a kept picture as PNG, lossless WebP or JPEG."""
    if media_type == MEDIA_TYPES["png"]:
        return kept
    with Image.open(io.BytesIO(kept)) as image:
        return _saved(image, media_type)


def _saved(image: Image.Image, media_type: str) -> bytes:
    file = io.BytesIO()
    if media_type == MEDIA_TYPES["webp"]:
        image.save(file, "WEBP", lossless=True, method=0)
    else:
        image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
