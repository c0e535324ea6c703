"""POST /v1/images/generations."""

import asyncio
import base64
import io
from dataclasses import replace

import pytest
from PIL import Image

from service.core.events import JobFinished
from service.core.inputs import Hires
from service.core.spec import GenerationSpec
from service.http.state import METRICS
from tests.support.job_service import service
from tests.support.simulation.fake_engine import FakeEngine, gradient

PATH = "/v1/images/generations"


async def asked(client, status=200, headers=None, **body):
    """Ask for images and return the answer."""
    async with client.post(PATH, json=body, headers=headers) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


def opened(text: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


async def test_a_prompt_is_enough(client):
    """The packages send nothing else; base64 is the default, and there is no url next to it."""
    answer = await asked(client, prompt="a boat")
    (image,) = answer.pop("data")
    assert image.keys() == {"b64_json", "seed"}
    assert opened(image["b64_json"]).size == (512, 512)
    assert isinstance(answer.pop("created"), int)
    assert answer == {
        "background": "opaque",
        "output_format": "png",
        "quality": "auto",
        "size": "512x512",
        "usage": {
            "input_tokens": 2,
            "input_tokens_details": {"text_tokens": 2, "image_tokens": 0},
            "output_tokens": 1024,
            "total_tokens": 1026,
        },
        "warnings": [],
    }


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ({"negative_prompt": "fog"}, "negative_prompt", "fog"),
        ({"seed": 7}, "seed", 7),
        ({"seed": "7"}, "seed", 7),
        ({"num_inference_steps": 3}, "steps", 3),
        ({"steps": 4.0, "num_inference_steps": 3}, "steps", 4),
        ({"guidance_scale": "2.5"}, "guidance_scale", 2.5),
        ({"sampler": "euler"}, "sampler", "euler"),
        ({"schedule": "karras"}, "schedule", "karras"),
        ({"size": "256x320"}, "width", 256),
        ({"size": "256x320"}, "height", 320),
        ({"size": "256*320"}, "height", 320),
        ({"size": "auto", "width": 384}, "width", 384),
        ({"size": "512x512", "width": 384}, "width", 384),
        ({"n": 2}, "num_images", 2),
        ({"n": None, "size": None, "seed": None}, "num_images", 1),
        ({"clip_skip": 2}, "clip_skip", 2),
        ({"prompt_syntax": "a1111"}, "prompt_syntax", "a1111"),
        ({"hires": {"scale": 2}}, "hires", Hires(scale=2)),
        ({"subseed": 3, "subseed_strength": "0.5"}, "subseed", 3),
    ],
)
async def test_fields_reach_the_engine(serve, body, field, value):
    """Those of OpenAI, those that other servers added, and those of the native API."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asking = asyncio.create_task(asked(client, prompt="a boat", **body))
    (job_id,) = await engine.jobs(1)
    request = engine.batch[job_id]
    assert getattr(request, field) == value
    await engine.step(request.total_steps)
    await asking


@pytest.mark.parametrize(
    "lora",
    [
        "ink:0.5",
        {"name": "ink", "scale": 0.5, "int_id": 3},
        [{"name": "ink", "weight": "0.5"}],
    ],
)
async def test_adapters_come_in_the_forms_of_other_servers(serve, lora):
    """By name in the catalogue; a path means nothing here."""
    client = await serve()
    answer = await asked(client, prompt="a boat", lora=lora)
    text = opened(answer["data"][0]["b64_json"]).info["parameters"]
    assert "<lora:ink:0.5>" in text


@pytest.mark.parametrize(
    "model", ["dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-2.5-x", "chatgpt-image-latest", ""]
)
async def test_models_of_openai_mean_the_default_one(client, model):
    """Clients send their names whatever is there."""
    answer = await asked(client, prompt="a boat", model=model)
    assert "Model: fake-1" in opened(answer["data"][0]["b64_json"]).info["parameters"]


async def test_other_models_are_not_found(client):
    """With the names that there are."""
    error = (await asked(client, 404, prompt="a boat", model="sdxl"))["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "demo" in error["message"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"quality": "auto", "background": "auto", "moderation": "auto", "user": "u"}, []),
        ({"background": "opaque", "safety_identifier": "s", "output_format": "jpg"}, []),
        ({"quality": "hd", "style": "vivid"}, ["quality", "style"]),
        ({"background": "transparent", "moderation": "low"}, ["background", "moderation"]),
        ({"output_format": "svg"}, ["output_format"]),
        ({"output_compression": 50}, ["output_compression"]),
        ({"output_format": "webp", "output_compression": 50}, []),
        ({"size": "1024x1024"}, ["size"]),
        ({"steps": 60}, ["steps"]),
        ({"num_inference_steps": "60"}, ["num_inference_steps"]),
        ({"complexity": "low", "frame_count": 2}, ["complexity", "frame_count"]),
        ({"prompt": "boat " * 80}, ["prompt"]),
    ],
)
async def test_what_cannot_be_honoured_is_accepted_and_named(client, body, fields):
    """A client that sends it gets its image, and is told."""
    answer = await asked(client, **{"prompt": "a boat"} | body)
    assert [each.partition(":")[0] for each in answer["warnings"]] == fields


async def test_a_size_that_is_not_possible_becomes_the_nearest(client):
    """KoboldAI Lite always asks for 1024x1024."""
    answer = await asked(client, prompt="a boat", size="1792x1024")
    assert answer["size"] == "768x448"
    assert opened(answer["data"][0]["b64_json"]).size == (768, 448)
    assert "1792x1024" in answer["warnings"][0]
    assert "768x448" in answer["warnings"][0]


async def test_an_operator_can_have_impossible_sizes_refused(serve):
    """COMPAT_SIZES=refuse; the error names the client's field."""
    client = await serve(compat_sizes="refuse")
    error = (await asked(client, 400, prompt="a boat", size="1024x1024"))["error"]
    assert error["param"] == "size"
    assert "between 256 and 768" in error["message"]
    error = (await asked(client, 400, prompt="a boat", num_inference_steps=51))["error"]
    assert error["param"] == "num_inference_steps"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "a" * 501}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": 5}, "n"),
        ({"n": True}, "n"),
        ({"size": "large"}, "size"),
        ({"size": 512}, "size"),
        ({"size": "0x0"}, "size"),
        ({"steps": -1}, "steps"),
        ({"seed": 2**40}, "seed"),
        ({"sampler": "magic"}, "sampler"),
        ({"response_format": "file"}, "response_format"),
        ({"output_compression": 101}, "output_compression"),
        ({"partial_images": 4}, "partial_images"),
        ({"stream": "perhaps"}, "stream"),
        ({"lora": 5}, "lora"),
        ({"lora": "nobody"}, "lora"),
        ({"lora": {"scale": 1}}, "lora"),
        ({"model": ["demo"]}, "model"),
        ({"response_format": "url"}, "response_format"),
    ],
)
async def test_errors_name_the_field_as_the_client_calls_it(client, body, param):
    """In OpenAI's form; without DATA_DIR there are no links."""
    start = {} if "prompt" in body or not body else {"prompt": "a boat"}
    error = (await asked(client, 400, **start, **body))["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


async def test_a_field_that_is_given_twice_is_refused(client):
    """Nobody knows which value was meant."""
    body = b'{"prompt": "a", "size": "256x256", "size": "512x512"}'
    headers = {"Content-Type": "application/json"}
    async with client.post(PATH, data=body, headers=headers) as answer:
        assert (answer.status, (await answer.json())["error"]["param"]) == (400, "size")


async def test_several_images_have_a_seed_each(client):
    """The seed that was used can be sent again."""
    answer = await asked(client, prompt="a boat", n=3, seed=2**32 - 1, size="256x256")
    assert [each["seed"] for each in answer["data"]] == [2**32 - 1, 0, 1]
    request = GenerationSpec(prompt="a boat", width=256, height=256)
    for each in answer["data"]:
        assert opened(each["b64_json"]).tobytes() == gradient(request, each["seed"]).pixels
    assert answer["usage"]["output_tokens"] == 3 * 256


@pytest.mark.parametrize(("name", "found"), [("webp", "WEBP"), ("jpeg", "JPEG"), ("png", "PNG")])
async def test_the_format_is_as_asked(client, name, found):
    """With a quality, where it has one."""
    files = []
    for quality in (None, 90, 10):
        answer = await asked(
            client, prompt="a boat", seed=1, output_format=name, output_compression=quality
        )
        assert answer["output_format"] == name
        assert opened(answer["data"][0]["b64_json"]).format == found
        files.append(len(answer["data"][0]["b64_json"]))
    assert (files[2] < files[1]) == (name != "png")


async def test_a_safety_checker_is_told_of_black_images(serve):
    """OpenAI has no field for it; the image is there, and black."""

    class Checked(FakeEngine):
        def _tell(self, event):
            if isinstance(event, JobFinished):
                images = tuple(replace(each, unsafe=True) for each in event.images)
                event = replace(event, images=images)
            super()._tell(event)

    answer = await asked(await serve(Checked()), prompt="a boat")
    assert answer["warnings"] == ["data: the safety checker blacked out image 1."]


async def test_an_answer_says_which_job_made_it(client):
    """And the request's id comes back in the header that the packages read."""
    headers = {"X-Request-ID": "mine"}
    async with client.post(PATH, json={"prompt": "a boat"}, headers=headers) as answer:
        assert len(answer.headers["X-Job-Id"]) == 32
        assert answer.headers["x-request-id"] == "mine"
    read = client.app[METRICS].registry.get_sample_value
    assert read("sd_jobs_total", {"api": "openai", "outcome": "succeeded", "code": ""}) == 1


async def test_a_request_with_an_idempotency_key_is_not_done_twice(tmp_path):
    """The packages send none by themselves; a caller may."""
    engine = FakeEngine()
    async with service(tmp_path, engine) as client:
        headers = {"Idempotency-Key": "k1"}
        first = await asked(client, headers=headers, prompt="a boat")
        async with client.post(PATH, json={"prompt": "a boat"}, headers=headers) as answer:
            assert answer.headers["Idempotent-Replayed"] == "true"
            assert (await answer.json())["data"][0]["seed"] == first["data"][0]["seed"]
        error = (await asked(client, 409, headers=headers, prompt="a cat"))["error"]
        assert error["code"] == "idempotency_conflict"


async def test_a_bare_options_is_answered(client):
    """SillyTavern's sdcpp source asks so whether the service is there."""
    async with client.options(PATH) as answer:
        assert (answer.status, await answer.text()) == (204, "")
        assert "POST" in answer.headers["Allow"]
