"""Finished images as files."""

import base64
import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from service.core.sampler import Sampler, Schedule
from service.core.spec import Adapter, GenerationSpec
from service.images.encode import infotext, json_answer, png
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


def test_the_infotext_is_the_one_that_other_tools_read():
    """AUTOMATIC1111's form, with the seed of this image."""
    expected = (
        "a boat\n"
        "Negative prompt: fog\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 8, "
        "Size: 64x128, Model: demo-1"
    )
    assert expected == infotext(REQUEST, IMAGE, "demo-1")


def test_what_is_seldom_said_shows_where_it_is_said():
    """The text of a request without it stays what it was."""
    request = replace(REQUEST, guidance_rescale=0.7, eta=0.5, clip_skip=2)
    line = infotext(request, IMAGE, "demo-1").splitlines()[-1]
    assert "Seed: 8, CFG rescale: 0.7, Eta: 0.5, Clip skip: 2, Size: 64x128" in line


def test_adapters_are_tags_in_the_infotext():
    """As AUTOMATIC1111 writes them, unless the prompt has them itself."""
    adapters = (
        Adapter(name="ink", weight=0.8, text_weight=0.8),
        Adapter(name="snow", weight=1.0, text_weight=0.5),
    )
    tagged = replace(REQUEST, adapters=adapters)
    first = infotext(tagged, IMAGE, "demo-1").splitlines()[0]
    assert first == "a boat <lora:ink:0.8> <lora:snow:0.5:1>"
    for own in ("<lora:ink:0.8>", "<lora:ink>"):
        mine = replace(tagged, prompt=f"a boat {own}")
        first = infotext(mine, IMAGE, "demo-1").splitlines()[0]
        assert first == f"a boat {own} <lora:snow:0.5:1>"
    tagged = replace(tagged, prompt="a boat <lora:ink:0.8>")
    first = infotext(tagged, IMAGE, "demo-1").splitlines()[0]
    assert first == "a boat <lora:ink:0.8> <lora:snow:0.5:1>"


def test_hashes_of_files_are_quoted():
    """As AUTOMATIC1111 writes them; what could not be read has none."""
    metadata = {"adapter_hashes": {"ink": "0cf9", "b": "12", "c": ""}, "embeddings": {"bad": "34"}}
    line = infotext(REQUEST, IMAGE, "demo-1", metadata).splitlines()[-1]
    assert line.endswith('Model: demo-1, Lora hashes: "ink: 0cf9, b: 12", TI hashes: "bad: 34"')
    nothing: dict[str, dict[str, str]] = {"adapter_hashes": {}, "embeddings": {}}
    assert infotext(REQUEST, IMAGE, "demo-1", nothing) == infotext(REQUEST, IMAGE, "demo-1")


def test_an_empty_negative_prompt_has_no_line():
    """It is left out, as those tools do."""
    request = GenerationSpec(prompt="a boat", width=64, height=64)
    assert infotext(request, IMAGE, "demo").splitlines()[1].startswith("Steps: 20")


@pytest.mark.parametrize("version", ["org/model:fp16", "a, b", 'say "hi"'])
def test_a_model_name_cannot_break_the_infotext(version):
    """Names with a separator in them are quoted."""
    line = infotext(REQUEST, IMAGE, version).splitlines()[-1]
    assert line.endswith(f"Model: {json.dumps(version)}")


def test_every_sampler_has_a_name_in_the_infotext():
    """No two samplers share one, and none is without."""
    assert len({sampler.infotext for sampler in Sampler} - {""}) == len(Sampler)


def test_the_models_own_schedule_has_no_name_in_the_infotext():
    """Other tools take it for theirs, and read an image of an earlier version as they did."""
    assert "Schedule" not in infotext(GenerationSpec(prompt="a boat"), IMAGE, "demo")
    assert len({schedule.infotext for schedule in Schedule} - {""}) == len(Schedule) - 1


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
    body = json_answer(images, REQUEST, {"model_version": "demo-1", "prompt": "船"})
    assert body.isascii()
    answer = json.loads(body)
    assert [png(p, REQUEST, "demo-1") for p in images] == [
        base64.b64decode(text) for text in answer["images_base64"]
    ]
