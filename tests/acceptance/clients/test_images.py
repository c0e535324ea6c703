"""The packages sd-parsers 0.6 and sd-prompt-reader 1.3.5 read the images of the service."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from PIL import Image

from service.app import create_app
from service.config.table import Config
from service.core.sampler import Sampler
from service.core.spec import Adapter, GenerationSpec
from service.images.encode import MEDIA_TYPES, file
from service.images.infotext import infotext
from tests.support import client_packages
from tests.support.images.prompts import requests, words
from tests.support.simulation.fake_engine import FakeEngine, gradient

pytestmark = client_packages.needed

Read = Callable[[bytes], dict[str, dict[str, Any]]]

Call = tuple[str, dict[str, Any], dict[str, str]]
"""Path, body and headers."""

SIZE = {"width": 256, "height": 256, "steps": 2, "seed": 7}
REQUEST = GenerationSpec(prompt="a boat", negative_prompt="fog", width=64, height=128, seed=7)
IMAGE = gradient(REQUEST, 7)
DETAILS = {
    "model_version": "demo-1",
    "model_hash": "6ce0161689",
    "adapter_hashes": {"big ink": "0cf9180a764a", "snow": "12"},
}
FATAL = (
    GenerationSpec(prompt="", negative_prompt="", width=64, height=128),
    replace(REQUEST, prompt=""),
    replace(REQUEST, prompt="Negative prompt: a\nNegative prompt: b", negative_prompt=""),
    replace(REQUEST, prompt="write Negative prompt: on a wall", negative_prompt="Negative prompt:"),
    replace(REQUEST, prompt="Steps: 3, Sampler: Euler, Seed: 1, CFG scale: 1\nSteps: 2"),
    replace(REQUEST, prompt='{a|b} {"prompt": "c"}', negative_prompt='"a": b, c'),
    replace(REQUEST, prompt="\U0001f6a2 £ 船\n\n\r\n  :", negative_prompt="\\"),
    replace(REQUEST, adapters=(Adapter(name="big ink", weight=-0.5, text_weight=1.0),)),
)
"""What one of the packages cannot read as it stands, or could not."""


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    """Return what reads a file with both packages."""
    with client_packages.started("read_images.py") as process:
        assert process.stdin
        assert process.stdout
        into, out = process.stdin, process.stdout

        def read(data: bytes) -> dict[str, dict[str, Any]]:
            into.write(base64.b64encode(data).decode() + "\n")
            into.flush()
            found: dict[str, dict[str, Any]] = json.loads(out.readline())
            return found

        yield read
        into.close()


def prompt_of(request: GenerationSpec) -> str:
    """Return the prompt with the tags of its adapters."""
    tags = [f"<lora:{each.name}:{each.text_weight:g}:{each.weight:g}>" for each in request.adapters]
    return " ".join([request.prompt, *tags])


def is_lost(text: str) -> bool:
    """Tell whether sd-prompt-reader takes the Exif data with a text for damaged.

    It first reads their comment in the other order of bytes, which not every text bears.
    """
    try:
        text.encode("utf-16-be").decode("utf-16")
    except UnicodeDecodeError:
        return True
    return False


def check(read: Read, request: GenerationSpec, media_type: str) -> None:
    """Compare what both packages read with what was asked for."""
    found = read(file(IMAGE, request, DETAILS, media_type))
    prompts = [words(prompt_of(request)), words(request.negative_prompt)]
    asked = {"Seed": "7", "Steps": f"{request.steps}", "CFG scale": f"{request.guidance_scale:g}"}
    theirs = found["sd-parsers"]
    assert "failure" not in theirs, theirs
    assert [words(theirs[name]) for name in ("prompt", "negative_prompt")] == prompts
    assert theirs["sampler"] == Sampler(request.sampler).infotext
    assert theirs["model"] == ["demo-1", "6ce0161689"]
    known = {name.lower().replace(" ", "_"): value for name, value in asked.items()}
    assert theirs["values"].items() >= known.items()
    assert ("scheduler" in theirs["values"]) == (request.schedule == "karras")
    theirs = found["sd-prompt-reader"]
    if media_type != MEDIA_TYPES["png"] and is_lost(infotext(request, IMAGE, "demo-1", DETAILS)):
        assert theirs == {"failure": "FORMAT_ERROR"}
        return
    assert "failure" not in theirs, theirs
    assert theirs["generator"] == "A1111 webUI"
    assert [words(theirs[name]) for name in ("prompt", "negative_prompt")] == prompts
    assert theirs["size"] == ["64", "128"]
    assert theirs["values"] == {
        "model": "demo-1",
        "sampler": Sampler(request.sampler).infotext,
        "seed": asked["Seed"],
        "cfg": asked["CFG scale"],
        "steps": asked["Steps"],
        "size": "64x128",
    }


@pytest.mark.parametrize("request_", FATAL)
@pytest.mark.parametrize("media_type", MEDIA_TYPES.values())
def test_what_each_package_failed_at(read: Read, request_: GenerationSpec, media_type: str) -> None:
    """None of it is taken for a parameter, none is lost, and nothing raises."""
    check(read, request_, media_type)


@pytest.mark.parametrize("media_type", MEDIA_TYPES.values())
@settings(deadline=None)
@given(request=requests)
def test_whatever_a_user_types(read: Read, request: GenerationSpec, media_type: str) -> None:
    """Both packages read both prompts and every parameter, in every format."""
    check(read, request, media_type)


def _native(name: str) -> Call:
    return "/generate", {"prompt": "a boat", **SIZE}, {"Accept": f"image/{name}"}


def _openai(name: str) -> Call:
    body = {"prompt": "a boat", "size": "256x256", "steps": 2, "seed": 7, "output_format": name}
    return "/v1/images/generations", body, {}


def _a1111(name: str) -> Call:
    options = {"samples_format": name, "jpeg_quality": 80}
    body = {"prompt": "a boat", **SIZE, "sampler_name": "Euler a", "override_settings": options}
    return "/sdapi/v1/txt2img", body, {}


CALLS: dict[str, Callable[[str], Call]] = {"native": _native, "openai": _openai, "sdapi": _a1111}
"""By API a request for one image in a format."""


@pytest.mark.parametrize("name", MEDIA_TYPES)
@pytest.mark.parametrize("api", CALLS)
async def test_images_of_every_api(read: Read, api: str, name: str) -> None:
    """As the service answers them, and png-info reads them again."""
    path, body, headers = CALLS[api](name)
    async with TestClient(TestServer(create_app(Config(data_dir=""), FakeEngine()))) as client:
        async with client.post(path, json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            data = await answer.read()
        if api != "native":
            found = json.loads(data)
            given = found["images"][0] if api == "sdapi" else found["data"][0]["b64_json"]
            data = base64.b64decode(given, validate=True)
        sent = {"image": base64.b64encode(data).decode()}
        async with client.post("/sdapi/v1/png-info", json=sent) as answer:
            told = await answer.json()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == (name.upper(), (256, 256))
    sampler = "Euler a" if api == "sdapi" else "DPM++ 2M"
    assert told["parameters"]["Prompt"] == "a boat"
    assert (told["parameters"]["Seed"], told["parameters"]["Size-1"]) == ("7", "256")
    readings = read(data)
    for theirs in readings.values():
        assert (theirs["prompt"], theirs["negative_prompt"]) == ("a boat", "")
    assert (readings["sd-parsers"]["sampler"], readings["sd-parsers"]["values"]["seed"]) == (
        sampler,
        "7",
    )
    assert readings["sd-prompt-reader"]["values"]["sampler"] == sampler
    assert readings["sd-prompt-reader"]["values"]["model"] == "fake-1"


def test_the_one_thing_that_is_lost_is_lost_for_automatic1111_too() -> None:
    """Some letters in a WebP or JPEG stop sd-prompt-reader 1.3.5, whoever wrote the file."""
    assert not is_lost("a boat, Négative, 100 %")
    assert is_lost("ein Schloß")
