"""Input images for tests: files as clients send them, and what a request says of them."""

import hashlib
import io
from dataclasses import replace
from random import Random

from PIL import Image

from service.core.inputs import InputImage
from service.core.spec import GenerationSpec
from service.jobs.inputs.base import IMAGE, MASK, InputStore, Upload
from tests.support.jobs.kept_jobs import REQUEST

SIZE = 64


def png(red: int = 200, size: int = SIZE, *, noise: bool = False) -> bytes:
    """Return an image of one colour as PNG, or one that does not get smaller by it."""
    if noise:
        drawn = Random(red).randbytes(size * size * 3)  # noqa: S311 - no secret
        return _file(Image.frombytes("RGB", (size, size), drawn))
    return _file(Image.new("RGB", (size, size), (red, 30, 30)))


def left_half(size: int = SIZE) -> bytes:
    """Return a mask that repaints the left half, as PNG."""
    mask = Image.new("L", (size, size))
    mask.paste(255, (0, 0, size // 2, size))
    return _file(mask)


def _file(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def received(store: InputStore, data: bytes, owner: str = "anonymous") -> Upload:
    """Receive a file as a handler does."""
    with store.receive(owner) as receiver:
        receiver.write(data)
        return receiver.done()


def uploaded(
    store: InputStore, image: bytes, mask: bytes = b"", request: GenerationSpec = REQUEST
) -> tuple[GenerationSpec, dict[str, Upload]]:
    """Return a request for another version of an image, and its uploads."""
    uploads = {IMAGE: received(store, image)} | ({MASK: received(store, mask)} if mask else {})
    asked = replace(
        request,
        image=_reference(image),
        mask=_reference(mask) if mask else None,
        strength=1.0,
        mask_blur=0,
    )
    return asked, uploads


def _reference(data: bytes) -> InputImage:
    width, height = Image.open(io.BytesIO(data)).size
    return InputImage(digest=hashlib.sha256(data).hexdigest(), width=width, height=height)
