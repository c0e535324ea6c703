"""Finished pictures as files."""

import base64
import io
import json

import pytest
from PIL import Image

from service.config import SAMPLERS
from service.diffusion.generation import GenerationRequest
from service.engine.fake import gradient
from service.http.pictures import INFOTEXT_SAMPLERS, infotext, json_answer, png

REQUEST = GenerationRequest(
    prompt="a boat",
    negative_prompt="fog",
    width=64,
    height=128,
    steps=20,
    seed=7,
    sampler="dpmpp_2m_karras",
)
PICTURE = gradient(REQUEST, 8)


def chunks(data: bytes) -> list[tuple[str, bytes]]:
    """Split a PNG into its chunks."""
    found, position = [], 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8].decode()
        found.append((kind, data[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def test_the_infotext_is_the_one_that_other_tools_read():
    """AUTOMATIC1111's form, with the seed of this picture."""
    expected = (
        "a boat\n"
        "Negative prompt: fog\n"
        "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 8, Size: 64x128, Model: demo-1"
    )
    assert expected == infotext(REQUEST, PICTURE, "demo-1")


def test_an_empty_negative_prompt_has_no_line():
    """It is left out, as those tools do."""
    request = GenerationRequest(prompt="a boat", width=64, height=64)
    assert infotext(request, PICTURE, "demo").splitlines()[1].startswith("Steps: 20")


@pytest.mark.parametrize("version", ["org/model:fp16", "a, b", 'say "hi"'])
def test_a_model_name_cannot_break_the_infotext(version):
    """Names with a separator in them are quoted."""
    line = infotext(REQUEST, PICTURE, version).splitlines()[-1]
    assert line.endswith(f"Model: {json.dumps(version)}")


def test_every_sampler_has_a_name_in_the_infotext():
    """A new sampler needs one here."""
    assert set(SAMPLERS) == set(INFOTEXT_SAMPLERS)


def test_the_file_has_the_pixels_and_the_parameters():
    """Nothing is lost or changed on the way into the PNG."""
    data = png(PICTURE, REQUEST, "demo-1")
    image = Image.open(io.BytesIO(data))
    assert ((64, 128), "RGB", PICTURE.pixels) == (image.size, image.mode, image.tobytes())
    assert infotext(REQUEST, PICTURE, "demo-1") == image.info["parameters"]
    assert [(k, v[:11]) for k, v in chunks(data) if k == "tEXt"] == [("tEXt", b"parameters\0")]


@pytest.mark.parametrize("prompt", ["ein Boot im Fluß", "船", "\U0001f6a2 boat"])
def test_prompts_in_any_language_come_back_from_the_file(prompt):
    """Latin-1 goes into tEXt, everything else into iTXt."""
    request = GenerationRequest(prompt=prompt, width=64, height=64)
    data = png(gradient(request, 0), request, "demo-1")
    image = Image.open(io.BytesIO(data))
    image.load()
    assert prompt == image.info["parameters"].splitlines()[0]


def test_the_json_answer_is_ascii_and_holds_every_picture():
    """Any JSON reader can take it."""
    pictures = (gradient(REQUEST, 1), gradient(REQUEST, 2))
    body = json_answer(pictures, REQUEST, {"model_version": "demo-1", "prompt": "船"})
    assert body.isascii()
    answer = json.loads(body)
    assert [png(p, REQUEST, "demo-1") for p in pictures] == [
        base64.b64decode(text) for text in answer["images_base64"]
    ]
