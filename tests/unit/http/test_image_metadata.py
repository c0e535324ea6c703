"""IMAGE_METADATA: what image files say about how they were made."""

import base64
import io
import json

import pytest
from PIL import Image

from service.images.infotext import parsed, read
from tests.support.job_service import BODY, ask, service, until

FORMATS = ("png", "webp", "jpeg")


async def kept(client, job, name):
    """Fetch an image of a job."""
    async with client.get(f"/jobs/{job}/image", headers={"Accept": f"image/{name}"}) as answer:
        assert (answer.status, answer.content_type) == (200, f"image/{name}")
        return await answer.read()


async def made(client, key):
    """Have a job made, and return its id."""
    job = await ask(client, "POST", "/jobs", 202, json=BODY, headers={"Idempotency-Key": key})
    await until(client, job["id"], "succeeded")
    return job["id"]


@pytest.mark.parametrize("name", FORMATS)
async def test_a_file_says_how_it_was_made(serve, name):
    """In the form that other tools read, whatever the format."""
    client = await serve()
    async with client.post("/generate", json=BODY, headers={"Accept": f"image/{name}"}) as answer:
        seed = json.loads(answer.headers["X-Metadata"])["seed"]
        text = read(await answer.read())
    assert text is not None
    found = parsed(text)
    assert found.prompt == BODY["prompt"]
    assert (found.values["Seed"], found.values["Model"]) == (str(seed), "fake-1")


@pytest.mark.parametrize("name", FORMATS)
async def test_without_metadata_a_file_is_pixels(serve, name):
    """Nor does the header tell."""
    client = await serve(image_metadata="none")
    async with client.post("/generate", json=BODY, headers={"Accept": f"image/{name}"}) as answer:
        assert "X-Metadata" not in answer.headers
        data = await answer.read()
    assert read(data) is None
    assert b"a cat" not in data


async def test_json_says_how_images_were_made_all_the_same(serve):
    """Who asks for JSON asks for it; the file inside holds nothing else."""
    client = await serve(image_metadata="none")
    async with client.post("/generate", json=BODY) as answer:
        body = await answer.json()
    assert body["metadata"]["prompt"] == BODY["prompt"]
    image = Image.open(io.BytesIO(base64.b64decode(body["image_base64"])))
    image.load()
    assert not {"parameters", "metadata"} & image.info.keys()


@pytest.mark.parametrize("setting", ["full", "none"])
@pytest.mark.parametrize("name", FORMATS)
async def test_the_setting_holds_for_every_api(serve, name, setting):
    """What an answer says next to its images stays; AUTOMATIC1111's clients can ask."""
    client = await serve(image_metadata=setting)
    body = {"prompt": "a cat", "size": "256x256", "output_format": name}
    async with client.post("/v1/images/generations", json=body) as answer:
        files = [each["b64_json"] for each in (await answer.json())["data"]]
    body = {"prompt": "a cat", "width": 256, "height": 256, "steps": 1}
    body["override_settings"] = {"samples_format": name}
    async with client.post("/sdapi/v1/txt2img", json=body) as answer:
        found = await answer.json()
    assert json.loads(found["info"])["infotexts"][0].startswith("a cat\nSteps: 1")
    texts = [read(base64.b64decode(each)) for each in (*files, *found["images"])]
    assert [text is not None for text in texts] == [setting == "full"] * 2
    async with client.get("/sdapi/v1/options") as answer:
        assert (await answer.json())["enable_pnginfo"] == (setting == "full")


@pytest.mark.parametrize("name", FORMATS)
async def test_the_setting_holds_for_images_that_were_kept_before_it(tmp_path, name):
    """They lose their texts on the way out; and what is kept under it has none to lose."""
    async with service(tmp_path) as client:
        first = await made(client, "first")
        assert read(await kept(client, first, name)) is not None
    async with service(tmp_path, image_metadata="none") as client:
        assert read(await kept(client, first, name)) is None
        same = {"Idempotency-Key": "first"}
        async with client.post("/generate", json=BODY, headers=same) as answer:
            assert (answer.status, answer.headers["Idempotent-Replayed"]) == (200, "true")
            body = await answer.json()
        assert read(base64.b64decode(body["image_base64"])) is None
        second = await made(client, "second")
    async with service(tmp_path) as client:
        assert read(await kept(client, second, name)) is None
        assert read(await kept(client, first, name)) is not None
