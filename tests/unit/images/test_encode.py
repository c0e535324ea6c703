"""Finished images as files."""

import base64
import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from service.core.spec import GenerationSpec
from service.images.encode import MEDIA_TYPES, converted, file, json_body, png
from service.images.infotext import infotext, read
from tests.support.simulation.fake_engine import gradient

REQUEST = GenerationSpec(
    prompt="a boat",
    negative_prompt="fog",
    width=64,
    height=128,
    steps=20,
    seed=7,
    sampler="dpmpp_2m_karras",
)
IMAGE = gradient(REQUEST, 8)


def chunks(data: bytes) -> list[tuple[str, bytes]]:
    """Split a PNG into its chunks."""
    found, position = [], 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8].decode()
        found.append((kind, data[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def test_the_file_has_the_pixels_and_the_parameters():
    """Nothing is lost or changed on the way into the PNG."""
    data = png(IMAGE, REQUEST, "demo-1")
    image = Image.open(io.BytesIO(data))
    assert ((64, 128), "RGB", IMAGE.pixels) == (image.size, image.mode, image.tobytes())
    assert infotext(REQUEST, IMAGE, "demo-1") == image.info["parameters"]
    assert [(k, v[:11]) for k, v in chunks(data) if k == "tEXt"] == [("tEXt", b"parameters\0")]


@pytest.mark.parametrize("prompt", ["ein Boot im Fluß", "船", "\U0001f6a2 boat"])
def test_prompts_in_any_language_come_back_from_the_file(prompt):
    """Latin-1 goes into tEXt, everything else into iTXt."""
    request = GenerationSpec(prompt=prompt, width=64, height=64)
    data = png(gradient(request, 0), request, "demo-1")
    image = Image.open(io.BytesIO(data))
    image.load()
    assert prompt == image.info["parameters"].splitlines()[0]


FORMS: list[tuple[str, int | None]] = [(media_type, None) for media_type in MEDIA_TYPES.values()]
FORMS += [(MEDIA_TYPES[name], 40) for name in ("webp", "jpeg")]
DETAILS = {"model_version": "demo-1", "model_hash": "6ce0161689"}


@pytest.mark.parametrize(("media_type", "quality"), FORMS)
def test_every_format_has_the_text(media_type, quality):
    """Fresh and converted from what was kept: the same bytes."""
    fresh = file(IMAGE, REQUEST, DETAILS, media_type, quality=quality)
    assert read(fresh) == infotext(REQUEST, IMAGE, "demo-1", DETAILS)
    kept = png(IMAGE, REQUEST, "demo-1", DETAILS)
    assert converted(kept, media_type, quality) == fresh


@pytest.mark.parametrize(("media_type", "quality"), FORMS)
def test_bare_files_hold_nothing_but_pixels(media_type, quality):
    """Also where more was kept: by an earlier version, or before the setting."""
    fresh = file(IMAGE, REQUEST, DETAILS, media_type, quality=quality, bare=True)
    kept = png(IMAGE, REQUEST, "demo-1", DETAILS)
    assert converted(kept, media_type, quality, bare=True) == fresh
    whole = file(IMAGE, REQUEST, DETAILS, media_type, quality=quality)
    seen, same = (Image.open(io.BytesIO(data)) for data in (fresh, whole))
    assert seen.tobytes() == same.tobytes()
    assert not {"parameters", "metadata", "exif", "comment"} & seen.info.keys()
    assert not dict(seen.getexif())
    for word in ("boat", "demo-1", "6ce0161689", "sd-api"):
        assert word.encode() not in fresh
        assert word.encode("utf-16-be") not in fresh


def test_a_text_without_room_is_left_out_of_a_jpeg():
    """A segment has 64 kB; two prompts of the most characters may need more."""
    request = replace(REQUEST, prompt="\U0001f6a2" * 10_000, negative_prompt="\U0001f6a2" * 10_000)
    assert read(file(IMAGE, request, DETAILS, "image/jpeg")) is None
    text = read(file(IMAGE, request, DETAILS, "image/webp"))
    assert text == infotext(request, IMAGE, "demo-1", DETAILS)


def test_the_json_answer_is_ascii_and_holds_every_image():
    """Any JSON reader can take it."""
    images = (gradient(REQUEST, 1), gradient(REQUEST, 2))
    files = [png(each, REQUEST, "demo-1") for each in images]
    body = json_body(files, {"model_version": "demo-1", "prompt": "船"})
    assert body.isascii()
    answer = json.loads(body)
    assert files == [base64.b64decode(text) for text in answer["images_base64"]]
