"""``POST /sdapi/v1/png-info``."""

import base64
import io

import pytest
from PIL import Image

from tests.unit.http.sdapi.asking import ask, draw, info


def png(size: int = 8) -> bytes:
    """Return an image without parameters."""
    file = io.BytesIO()
    Image.new("RGB", (size, size)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
async def test_an_image_says_what_it_was_made_from(client, prefix):
    """With and without the beginning of a data URL."""
    made = await draw(client, prompt="a cat, (big:1.1)", negative_prompt="fog")
    image = prefix + made["images"][0]
    found = await ask(client, "POST", "png-info", json={"image": image})
    assert found["info"] == info(made)["infotexts"][0]
    assert found["items"] == {"parameters": found["info"]}
    parameters = found["parameters"]
    assert (parameters["Prompt"], parameters["Negative prompt"]) == ("a cat, (big:1.1)", "fog")
    assert (parameters["Steps"], parameters["Size-1"]) == ("2", "256")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_base64_may_be_broken_into_lines(client, end):
    """As encoders of mail do; spaces are still no base64."""
    made = await draw(client)
    text = made["images"][0]
    lines = end.join(text[at : at + 76] for at in range(0, len(text), 76)) + end
    found = await ask(client, "POST", "png-info", json={"image": lines})
    assert found["info"] == info(made)["infotexts"][0]
    await ask(client, "POST", "png-info", 400, json={"image": text[:8] + " " + text[8:]})


async def test_an_image_without_parameters_says_nothing(client):
    """Which is no error."""
    image = base64.b64encode(png()).decode()
    found = await ask(client, "POST", "png-info", json={"image": image})
    assert found == {"info": "", "items": {}, "parameters": {}}


@pytest.mark.parametrize(
    "image", [None, 5, "", "%%%", "aGVsbG8=", "data:image/png;base64,", "data:,", "é", ["x"]]
)
async def test_what_is_no_image_is_refused(client, image):
    """In words, whatever it is."""
    found = await ask(client, "POST", "png-info", 400, json={"image": image})
    assert found["detail"].startswith("image: must be a")


async def test_images_may_be_larger_than_other_bodies(serve):
    """Up to a limit of their own, which holds on this route alone."""
    client = await serve(max_image_bytes=200_000)
    image = base64.b64encode(png() + bytes(190_000)).decode()
    await ask(client, "POST", "png-info", json={"image": image})
    found = await draw(client, 413, negative_prompt="x" * 100_000)
    assert "MAX_BODY_BYTES" in found["detail"]
    image = base64.b64encode(png() + bytes(210_000)).decode()
    found = await ask(client, "POST", "png-info", 400, json={"image": image})
    assert found["detail"] == "image: must have at most 200000 bytes (MAX_IMAGE_BYTES)"
    found = await ask(client, "POST", "png-info", 413, json={"image": image + "A" * 200_000})
    assert "MAX_IMAGE_BYTES" in found["detail"]
