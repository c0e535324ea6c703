"""``POST /v1/images/edits`` and ``/v1/images/variations`` over the fake engine."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import FormData
from yarl import URL

from service.http.state import METRICS
from tests.support.images.files import base64_of, mask, opened, png
from tests.support.samples import sample
from tests.support.simulation.fake_engine import FakeEngine

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"
SIZE = (256, 256)
PNG, HOLE = png(SIZE), png(SIZE, hole=True)
EDIT = {"prompt": "a boat", "steps": "8", "seed": "7"}

Parts = list[tuple[str, str | bytes]]


def form_of(parts: Parts) -> FormData:
    """Return a form with these parts in their order; bytes are files as Node sends them."""
    form = FormData(default_to_multipart=True)
    for name, value in parts:
        if isinstance(value, str):
            form.add_field(name, value)
        else:
            kind = "application/octet-stream"
            form.add_field(name, value, filename="upload", content_type=kind)
    return form


async def send(client, path: str, parts: Parts, status: int = 200, **more: Any) -> Any:
    """Send a form and return the answer."""
    async with client.post(path, data=form_of(parts), **more) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def edit(client, *files: tuple[str, bytes], status: int = 200, **fields: str) -> Any:
    """Ask for an edit, the files first."""
    return await send(client, EDITS, [*files, *(EDIT | fields).items()], status)


async def drawn_as(serve, path: str, parts: Parts) -> Any:
    """Return what the engine is asked to draw."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asking = asyncio.create_task(send(client, path, parts))
    (job_id,) = await engine.jobs(1)
    request = engine.batch[job_id]
    await engine.step(request.total_steps)
    await asking
    return request


async def test_an_image_is_redrawn(client):
    """In its own size where none is asked for."""
    answer = await edit(client, ("image", PNG), n="2")
    assert [opened(each["b64_json"]).size for each in answer["data"]] == [SIZE] * 2
    assert [each["seed"] for each in answer["data"]] == [7, 8]
    assert (answer["size"], answer["warnings"]) == ("256x256", [])
    assert answer["usage"]["input_tokens_details"] == {"text_tokens": 2, "image_tokens": 256}
    labels = {"api": "openai", "outcome": "succeeded", "code": ""}
    assert sample(client.app[METRICS], "sd_jobs_total", **labels) == 1


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({}, "strength", 0.8),
        ({"strength": "0.5"}, "strength", 0.5),
        ({"size": "auto"}, "width", 256),
        ({"size": "320x384"}, "height", 384),
        ({"resize": "fill"}, "resize", "fill"),
        ({"lora": '[{"name": "ink", "scale": 0.5}]'}, "adapters", 0.5),
    ],
)
async def test_fields_reach_the_engine(serve, fields, name, value):
    """Texts of a form are read as what they are; JSON in them, too."""
    parts: Parts = [("image", PNG), *(EDIT | fields).items()]
    request = await drawn_as(serve, EDITS, parts)
    found = request.adapters[0].weight if name == "adapters" else getattr(request, name)
    assert found == value


@pytest.mark.parametrize("name", ["mask", "mask_image"])
async def test_what_is_transparent_in_the_mask_is_repainted(client, name):
    """And the rest stays to the byte."""
    answer = await edit(client, ("image", PNG), (name, HOLE))
    check_hole(answer)


async def test_an_image_with_transparent_parts_is_its_own_mask(client):
    """As it is with OpenAI."""
    check_hole(await edit(client, ("image", HOLE)))


def check_hole(answer: Any) -> None:
    """Compare an image with the one that it was made from."""
    drawn, given = opened(answer["data"][0]["b64_json"]), opened(base64_of(PNG))
    corner, middle = (0, 0, 32, 32), (96, 96, 160, 160)
    assert drawn.crop(corner).tobytes() == given.crop(corner).tobytes()
    assert drawn.crop(middle).tobytes() != given.crop(middle).tobytes()


@pytest.mark.parametrize("names", [("image[]", "image[]"), ("image", "image")])
async def test_of_several_images_the_first_is_taken(client, names):
    """The others are named in the warnings."""
    answer = await edit(client, (names[0], PNG), (names[1], png((64, 64))))
    assert opened(answer["data"][0]["b64_json"]).size == SIZE
    assert answer["warnings"] == [
        "image: only the first is used; this service draws from one image."
    ]


async def test_what_changes_nothing_is_named(client):
    """As for images from a prompt."""
    answer = await edit(client, ("image", PNG), input_fidelity="high", quality="auto", x="1")
    assert [each.partition(":")[0] for each in answer["warnings"]] == ["input_fidelity", "x"]


async def test_a_stream_has_events_of_its_own(client):
    """The packages go by their names."""
    parts: Parts = [("image", PNG), *EDIT.items(), ("stream", "true"), ("partial_images", "1")]
    async with client.post(EDITS, data=form_of(parts)) as answer:
        assert answer.content_type == "text/event-stream"
        lines = (await answer.text()).splitlines()
    events = [json.loads(each[6:]) for each in lines if each.startswith("data: ")]
    kinds = [each["type"] for each in events]
    assert kinds[-1] == "image_edit.completed"
    assert set(kinds[:-1]) <= {"image_edit.partial_image"}
    assert opened(events[-1]["b64_json"]).size == SIZE


async def test_images_may_come_in_json(client):
    """In base64, as on the native API."""
    body = {"prompt": "a boat", "steps": 2, "image": base64_of(PNG)}
    async with client.post(EDITS, json=body) as answer:
        assert answer.status == 200, await answer.text()
        (image,) = (await answer.json())["data"]
    assert opened(image["b64_json"]).size == SIZE


@pytest.mark.parametrize(
    ("files", "fields", "param"),
    [
        ([], {}, "image"),
        ([("image", b"\x89PNG" * 30_000)], {}, "image"),
        ([("image", PNG), ("mask", b"GIF89a")], {}, "mask"),
        ([("image", PNG), ("mask", PNG)], {}, "mask"),
        ([("image", PNG), ("mask", mask(SIZE))], {}, "mask"),
        ([("image", PNG)], {"strength": "2"}, "strength"),
        ([("image", PNG)], {"n": "9"}, "n"),
        ([("image", PNG)], {"prompt": ""}, "prompt"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_name(client, files, fields, param):
    """A mask without transparent parts, too: nothing would be repainted."""
    error = (await edit(client, *files, status=400, **fields))["error"]
    assert (error["code"], error["param"]) == ("validation_error", param)


async def test_a_variation_needs_an_image_alone(serve):
    """It is redrawn from no words of its own."""
    request = await drawn_as(serve, VARIATIONS, [("image", PNG), ("steps", "4")])
    assert (request.prompt, request.strength, request.width) == ("an image", 0.7, 256)


async def test_a_variation_takes_the_prompt_that_the_image_names(serve):
    """The images of the service do; a prompt in the request goes before it."""
    client = await serve()
    body = {"prompt": "a boat at dusk", "width": 256, "height": 256, "steps": 2}
    async with client.post("/generate", json=body, headers={"Accept": "image/png"}) as answer:
        made = await answer.read()
    request = await drawn_as(serve, VARIATIONS, [("image", made), ("steps", "4")])
    assert request.prompt == "a boat at dusk"
    request = await drawn_as(serve, VARIATIONS, [("image", made), ("prompt", "a cat")])
    assert request.prompt == "a cat"


async def test_a_request_that_is_sent_again_is_not_done_twice(tmp_path, serve):
    """A form has another boundary each time; the image counts by its bytes."""
    client = await serve(data_dir=str(tmp_path))
    key = {"Idempotency-Key": "k"}
    parts: Parts = [("image", PNG), *EDIT.items()]
    first = await send(client, EDITS, parts, headers=key)
    again = await send(client, EDITS, parts, headers=key)
    assert first["data"] == again["data"]
    other: Parts = [("image", HOLE), *EDIT.items()]
    error = (await send(client, EDITS, other, 409, headers=key))["error"]
    assert error["code"] == "idempotency_conflict"


async def test_links_lead_to_redrawn_images(tmp_path, serve):
    """Where images are kept."""
    client = await serve(data_dir=str(tmp_path))
    parts: Parts = [("image", PNG), *EDIT.items(), ("response_format", "url")]
    (image,) = (await send(client, EDITS, parts))["data"]
    async with client.get(URL(image["url"]).relative()) as got:
        assert (got.status, got.content_type) == (200, "image/png")
