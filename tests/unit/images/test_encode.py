"""Finished images as files."""

import base64
import io
import json

import pytest
from PIL import Image

from service.core.spec import GenerationSpec
from service.images.encode import json_body, png
from service.images.infotext import infotext
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


def test_the_json_answer_is_ascii_and_holds_every_image():
    """Any JSON reader can take it."""
    images = (gradient(REQUEST, 1), gradient(REQUEST, 2))
    files = [png(each, REQUEST, "demo-1") for each in images]
    body = json_body(files, {"model_version": "demo-1", "prompt": "船"})
    assert body.isascii()
    answer = json.loads(body)
    assert files == [base64.b64decode(text) for text in answer["images_base64"]]
