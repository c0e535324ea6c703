"""The OpenAI API with the demo model: real partial images, and the same images as elsewhere."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
from PIL import Image, ImageChops, ImageStat

from tests.support.service_process import ServiceProcess, running_service

BODY = {"prompt": "a red lighthouse at dusk", "width": 256, "height": 256, "steps": 20, "seed": 42}
SECONDS = 120


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    """Start a service with the demo model."""
    with running_service(TORCH_THREADS=1) as started:
        yield started


def answered(service: ServiceProcess, path: str, body: dict[str, Any]) -> str:
    """Return the text of an answer."""
    headers = {"Content-Type": "application/json"}
    request = Request(f"{service.url}{path}", json.dumps(body).encode(), headers)  # noqa: S310
    with urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - http, to our own service
        return str(answer.read().decode())


def opened(image: str) -> Image.Image:
    """Return an image in base64."""
    return Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two images, from 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def test_partial_images_become_the_finished_one(service: ServiceProcess) -> None:
    """They are of the image in the making, and the last one is nearer to it than another image."""
    sent = {**BODY, "stream": True, "partial_images": 3}
    lines = answered(service, "/v1/images/generations", sent).splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    *partial, finished = (opened(each["b64_json"]) for each in events)
    kinds = [each["type"].rpartition(".")[2] for each in events]
    assert kinds == ["partial_image"] * len(partial) + ["completed"]
    assert 1 <= len(partial) <= 3
    other = answered(service, "/v1/images/generations", {**BODY, "prompt": "a green forest"})
    another = opened(json.loads(other)["data"][0]["b64_json"])
    assert all(each.size == finished.size for each in partial)
    assert difference(partial[-1], finished) < difference(another, finished)


def test_the_same_seed_gives_the_same_image_on_both_apis(service: ServiceProcess) -> None:
    """Pixel by pixel; the tokens of the prompt are those of the model's tokenizer."""
    answer = json.loads(answered(service, "/v1/images/generations", BODY))
    native = json.loads(answered(service, "/generate", BODY))
    assert difference(opened(answer["data"][0]["b64_json"]), opened(native["image_base64"])) == 0
    assert answer["data"][0]["seed"] == 42
    assert answer["usage"]["input_tokens"] == native["metadata"]["prompt_tokens"] > 4
