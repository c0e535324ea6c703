"""Finished images as files and as answers; all of it is work for a thread."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from PIL import Image, PngImagePlugin

from service.core.events import JobFinished
from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.errors import ResultDamaged
from service.images.encoded import Encoded
from service.images.infotext import LONGEST_EXIF, exif, infotext
from service.images.packing import Z_RLE, opened, with_texts

# Pillow imports its formats at the first save, which a service without a file descriptor to
# spare, or with its disk gone, can no longer do.
Image.init()

MEDIA_TYPES: Final = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
JPEG_QUALITY: Final = 90

PARAMETERS: Final = "parameters"
"""Name of the text chunk that other tools read."""

SIGNATURE: Final = 8
AROUND_CHUNK: Final = 12
"""Bytes of a PNG: at its beginning, and of a chunk without its data."""
TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
"""Chunks that say something about the image."""


def png(
    image: RawImage,
    request: GenerationSpec,
    model_version: str,
    metadata: Mapping[str, Any] | None = None,
    *,
    whole: bool = True,
    bare: bool = False,
    index: int = 0,
) -> bytes:
    """Return the image as PNG with the text chunk ``parameters``.

    With ``whole`` there is another one with ``metadata`` as JSON; with ``bare`` there is neither.
    """
    chunks = PngImagePlugin.PngInfo()
    # add_text writes tEXt for Latin-1 and falls back to iTXt for everything else.
    if not bare:
        chunks.add_text(PARAMETERS, infotext(request, image, model_version, metadata, index))
    if metadata is not None and whole and not bare:
        chunks.add_text("metadata", json.dumps(metadata))
    return with_texts(image, chunks)


def file(
    image: RawImage,
    request: GenerationSpec,
    metadata: Mapping[str, Any],
    media_type: str,
    *,
    whole: bool = True,
    quality: int | None = None,
    bare: bool = False,
    index: int = 0,
) -> bytes:
    """Return an image as a file; the options mean what ``png`` and ``converted`` say."""
    version = metadata["model_version"]
    if media_type == MEDIA_TYPES["png"]:
        return png(image, request, version, metadata, whole=whole, bare=bare, index=index)
    text = "" if bare else infotext(request, image, version, metadata, index)
    return _saved(opened(image), media_type, quality, text)


def json_body(files: Sequence[bytes], metadata: Mapping[str, Any]) -> bytes:
    """Return the JSON body of an answer with these PNG files."""
    encoded = [base64.b64encode(file).decode("ascii") for file in files]
    body: dict[str, Any] = {"image_base64": encoded[0], "metadata": metadata}
    if len(encoded) > 1:
        body["images_base64"] = encoded
    return json.dumps(body).encode()


def files(
    result: JobFinished, request: GenerationSpec, metadata: Mapping[str, Any], *, bare: bool = False
) -> list[Encoded]:
    """Return the images of a job as they are kept: PNG, with everything known about them.

    With ``bare`` they hold nothing but pixels.
    """
    return [
        Encoded(
            data=png(image, request, metadata["model_version"], metadata, bare=bare, index=index),
            media_type=MEDIA_TYPES["png"],
        )
        for index, image in enumerate(result.images)
    ]


def preview(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the event of a preview says: its pixels as a JPEG of two kilobytes or so."""
    image = Image.frombytes("RGB", (seen["width"], seen["height"]), seen["pixels"])
    file = _saved(image, MEDIA_TYPES["jpeg"])
    said = {name: value for name, value in seen.items() if name != "pixels"}
    encoded = base64.b64encode(file).decode("ascii")
    return {**said, "media_type": MEDIA_TYPES["jpeg"], "image_base64": encoded}


def enlarged(seen: Mapping[str, Any], size: tuple[int, int], media_type: str) -> bytes:
    """Return a preview as a file of this width and height in pixels."""
    small = Image.frombytes("RGB", (seen["width"], seen["height"]), seen["pixels"])
    return written(small.resize(size, Image.Resampling.BICUBIC), media_type, JPEG_QUALITY)


def written(image: Image.Image, media_type: str, quality: int | None = None) -> bytes:
    """Return an image as a file that holds nothing but its pixels."""
    if media_type != MEDIA_TYPES["png"]:
        return _saved(image, media_type, quality)
    file = io.BytesIO()
    image.save(file, "PNG", compress_type=Z_RLE)
    return file.getvalue()


def converted(
    kept: bytes, media_type: str, quality: int | None = None, *, bare: bool = False
) -> bytes:
    """Return a kept image as PNG, WebP or JPEG, with the text about it.

    ``quality`` is from 1 to 100; None makes lossless WebP, and JPEG of the usual quality. With
    ``bare`` there is nothing but pixels, whatever was kept.

    Raises:
        ResultDamaged: it is no image.

    """
    if media_type == MEDIA_TYPES["png"]:
        return _without_text(kept) if bare else kept
    try:
        with Image.open(io.BytesIO(kept), formats=("PNG",)) as image:
            text = "" if bare else str(image.info.get(PARAMETERS, ""))
            return _saved(image, media_type, quality, text)
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise ResultDamaged(
            "The stored images of the job are damaged; send the request again."
        ) from error


def _saved(
    image: Image.Image, media_type: str, quality: int | None = None, text: str = ""
) -> bytes:
    """Return an image as WebP or JPEG, with a text about it if there is room for that."""
    file = io.BytesIO()
    about = exif(text) if text else b""
    if media_type != MEDIA_TYPES["webp"]:
        about = about if len(about) <= LONGEST_EXIF else b""
        quality = JPEG_QUALITY if quality is None else quality
        image.save(file, "JPEG", quality=quality, exif=about)
    elif quality is None:
        image.save(file, "WEBP", lossless=True, method=0, exif=about)
    else:
        image.save(file, "WEBP", quality=quality, exif=about)
    return file.getvalue()


def _without_text(kept: bytes) -> bytes:
    """Return a PNG without what it says about its image."""
    found, start = [kept[:SIGNATURE]], SIGNATURE
    while start < len(kept):
        length, kind = int.from_bytes(kept[start : start + 4]), kept[start + 4 : start + 8]
        end = start + length + AROUND_CHUNK
        if kind not in TEXTS:
            found.append(kept[start:end])
        start = end
    return b"".join(found)
