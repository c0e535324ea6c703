"""Requests that bring images: as base64, as parts of a form, or as a finished job."""

import asyncio
import base64
import gzip
import hashlib
import json
import os
from typing import Any

import pytest
from aiohttp import FormData, web
from PIL import Image

from service.core.inputs import EngineInputs, InputSource
from service.core.spec import GenerationSpec
from service.http.state import INPUTS
from tests.support.images.files import opened
from tests.support.simulation.fake_engine import FakeEngine
from tests.unit.http.sdapi.asking import ALICE, BOB, KEYS
from tests.unit.images.files import gradient, saved

IMAGE = saved(gradient((300, 260)))
MASK = saved(Image.new("L", (300, 260), 255))
LARGE = saved(Image.effect_noise((400, 400), 90).convert("RGB"))
"""More than a body without images may have."""
JOB = {"prompt": "a boat", "steps": 4, "seed": 7, "width": 256, "height": 256}


class Watched(FakeEngine):
    """An engine that remembers the images it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[EngineInputs | None] = []

    def generate(
        self,
        job_id: str,
        request: GenerationSpec,
        epoch: int,
        inputs: InputSource | None = None,
    ) -> None:
        """Remember the images of a job, and draw it."""
        super().generate(job_id, request, epoch, inputs)
        self.seen.append(self.inputs[job_id])


def base64_of(data: bytes, prefix: str = "") -> str:
    """Return an image as a text."""
    return prefix + base64.b64encode(data).decode()


def form(*files: tuple[str, bytes], **fields: str) -> FormData:
    """Return a form with files first, then texts."""
    found = FormData(default_to_multipart=True)
    for name, data in files:
        found.add_field(name, data, filename="a.png", content_type="application/octet-stream")
    for name, value in fields.items():
        found.add_field(name, value)
    return found


async def sent(client: Any, path: str = "/generate", **request: Any) -> tuple[int, dict[str, Any]]:
    """Return status and body of the answer to a request."""
    async with client.post(path, **request) as answer:
        return answer.status, await answer.json()


def left(client: Any) -> int:
    """Return the bytes of images that no job keeps."""
    count: int = client.app[INPUTS].receiving_bytes
    return count


async def emptied(client: Any) -> None:
    """Wait until no bytes are left that no job keeps; files are removed in a thread."""
    while left(client):
        async with client.get("/health/live"):  # A round trip lets the others move on.
            pass


@pytest.fixture(params=["memory", "files"])
async def service(request: Any, serve: Any, tmp_path: Any) -> Any:
    """Start a service that keeps images in memory, and one that has a folder for them."""
    return await serve(data_dir="" if request.param == "memory" else str(tmp_path))


async def test_an_image_comes_in_three_forms(service: Any):
    """As base64, as a data URL and as a part of a form: the same images come of them."""
    as_text = {**JOB, "image": base64_of(IMAGE), "strength": 0.5}
    as_url = {**as_text, "image": base64_of(IMAGE, "data:image/png;base64,")}
    fields = {name: str(value) for name, value in {**JOB, "strength": 0.5}.items()}

    answers = [
        await sent(service, json=as_text),
        await sent(service, json=as_url),
        await sent(service, data=form(("image", IMAGE), **fields)),
    ]

    assert [status for status, _ in answers] == [200] * 3
    metadata = answers[0][1]["metadata"]
    assert metadata["image"] == {
        "digest": hashlib.sha256(IMAGE).hexdigest(),
        "width": 300,
        "height": 260,
    }
    answers.append(await sent(service, json=JOB))
    *three, without = (opened(answer["image_base64"]).tobytes() for _, answer in answers)
    assert len({*three}) == 1
    assert without not in three
    await emptied(service)


async def test_a_large_body_goes_to_the_input_store(service: Any):
    """As JSON and as a form, with an image and a mask, and nothing of it is left."""
    body = {**JOB, "image": base64_of(LARGE), "mask": base64_of(LARGE)}
    fields = {name: str(value) for name, value in JOB.items()}
    large_form = form(("image", LARGE), ("mask", LARGE), **fields)
    assert len(LARGE) > 65_536

    answers = [await sent(service, json=body), await sent(service, data=large_form)]

    assert [status for status, _ in answers] == [200, 200]
    one, other = (opened(answer["image_base64"]).tobytes() for _, answer in answers)
    assert one == other
    await emptied(service)


async def test_the_engine_gets_pixels(serve: Any):
    """The image in the size that is drawn, three bytes a pixel; the mask one."""
    engine = Watched()
    client = await serve(engine)
    status, _ = await sent(client, json={**JOB, "image": base64_of(IMAGE), "mask": base64_of(MASK)})

    assert status == 200
    (inputs,) = engine.seen
    assert inputs is not None
    assert (len(inputs.image), inputs.mask) == (256 * 256 * 3, b"\xff" * 256 * 256)


async def test_a_finished_job_is_an_image(serve: Any, tmp_path: Any):
    """By its id, and the number of its image; the bytes that are kept are those that count."""
    client = await serve(data_dir=str(tmp_path))
    _, job = await sent(client, "/jobs", json={**JOB, "num_images": 2})
    async with client.get(f"/jobs/{job['id']}/events") as events:
        await events.read()
    async with client.get(f"/jobs/{job['id']}/image?index=1") as answer:
        kept = await answer.read()

    status, made = await sent(client, json={**JOB, "image": {"job": job["id"], "index": 1}})

    assert status == 200
    assert made["metadata"]["image"]["digest"] == hashlib.sha256(kept).hexdigest()
    fields = {name: str(value) for name, value in JOB.items()}
    fields["image"] = json.dumps({"job": job["id"], "index": 1})
    found = (await sent(client, data=form(**fields)))[1]
    one, other = opened(found["image_base64"]), opened(made["image_base64"])
    assert one.tobytes() == other.tobytes()
    for index in (2, -1, True, "0"):
        status, problem = await sent(
            client, json={**JOB, "image": {"job": job["id"], "index": index}}
        )
        assert (status, problem["errors"]) == (400, {"image": ["must have an index from 0 to 1"]})


async def test_jobs_of_others_are_unknown(serve: Any, tmp_path: Any):
    """404, as for ids that no job has."""
    client = await serve(data_dir=str(tmp_path), api_keys=KEYS)
    _, job = await sent(client, "/jobs", json=JOB, headers={"X-API-Key": ALICE})
    async with client.get(f"/jobs/{job['id']}/events", headers={"X-API-Key": ALICE}) as events:
        await events.read()

    for name, key, status in ((job["id"], BOB, 404), ("0" * 32, BOB, 404), (job["id"], ALICE, 200)):
        body = {**JOB, "image": {"job": name}}
        answer, told = await sent(client, json=body, headers={"X-API-Key": key})
        assert answer == status
        assert status == 200 or told["detail"].startswith("image: There is no job with this id.")


async def test_a_file_in_another_field_is_refused_by_its_name(service: Any):
    """So is an empty file in a field of images."""
    for name in ("foto", "prompt"):
        status, problem = await sent(service, data=form((name, b"bytes"), steps="4"))
        cure = "cannot be a file; files are image and mask"
        assert (status, problem["errors"]) == (400, {name: [cure]})

    status, problem = await sent(service, data=form(("image", b""), prompt="a boat"))
    assert (status, list(problem["errors"])) == (400, ["image"])


async def test_another_type_of_body_is_told_both_that_are_read(service: Any):
    """As 415."""
    status, problem = await sent(service, data={"prompt": "a boat"})

    assert status == 415
    assert "application/json or multipart/form-data" in problem["detail"]


async def test_without_data_dir_a_job_cannot_stand_for_an_image(serve: Any):
    """The error says what to send in its place."""
    client = await serve(data_dir="")

    status, problem = await sent(client, json={**JOB, "image": {"job": "0" * 32}})

    assert (status, problem["code"]) == (503, "jobs_off")
    assert problem["detail"].startswith("image: ")
    assert problem["detail"].endswith("send the image.")


@pytest.mark.parametrize(
    "address",
    [
        *("http://127.0.0.1:{port}/a.png", "https://example.org/a.png", "file:///etc/passwd"),
        *("ftp://127.0.0.1:{port}/a", "//127.0.0.1:{port}/a.png", "/etc/passwd", "\\\\host\\a"),
    ],
)
async def test_no_address_is_fetched(service: Any, address: str, aiohttp_server: Any):
    """Neither in JSON nor in a form; it is no base64."""
    asked = []

    async def answer(request: Any) -> Any:
        asked.append(request)
        raise AssertionError

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    server = await aiohttp_server(app)
    address = address.format(port=server.port)

    for request in (
        {"json": {**JOB, "image": address}},
        {"json": {**JOB, "image": {"url": address}}},
        {"json": {**JOB, "image": {"job": address}}},
        {"data": form(prompt="a boat", image=address)},
    ):
        status, problem = await sent(service, **request)
        assert status in (400, 404, 503)
        assert status != 400 or "base64" in problem["errors"]["image"][0]
    assert not asked


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *((value, "must be an image in base64") for value in (1, True, [], ["a"], {"a": 1}, 1.5)),
        *((value, "must be an image in base64") for value in ("%", "abc", {"job": 1})),
        ({"job": "a", "size": 1}, "must be an image in base64"),
        (base64_of(b"hello"), "must be a PNG, JPEG, WebP or AVIF image"),
        (base64_of(IMAGE[:-500]), "must be a PNG, JPEG, WebP or AVIF image"),
        (base64_of(saved(gradient(), "GIF")), "must be a PNG, JPEG, WebP or AVIF image"),
    ],
)
async def test_what_is_no_image_is_refused_by_name(service: Any, value: Any, said: str):
    """400 with the field and how to send it right, for images and for masks."""
    status, problem = await sent(service, json={**JOB, "image": value})
    assert status == 400
    assert problem["errors"]["image"][0].startswith(said)

    body = {**JOB, "image": base64_of(IMAGE), "mask": value}
    status, problem = await sent(service, json=body)
    assert status == 400
    assert problem["errors"]["mask"][0].startswith(said)
    await emptied(service)


async def test_null_is_no_image(service: Any):
    """As if it were left out; twice is once too often."""
    assert (await sent(service, json={**JOB, "image": None, "mask": None}))[0] == 200
    text = json.dumps(base64_of(IMAGE))
    twice = f'{{"prompt": "a", "image": {text}, "image": {text}}}'
    headers = {"Content-Type": "application/json"}
    status, problem = await sent(service, data=twice.encode(), headers=headers)
    assert (status, problem["errors"]["image"]) == (400, ["is given more than once; keep one"])
    status, problem = await sent(service, data=form(("image", IMAGE), ("image", IMAGE), prompt="a"))
    assert (status, problem["errors"]["image"]) == (400, ["is given more than once; keep one"])


async def test_limits_of_images_are_named(serve: Any):
    """Bytes and pixels, by their settings."""
    client = await serve(max_image_bytes=20_000, max_image_pixels=50_000)
    cases = ((LARGE, "20000 bytes (MAX_IMAGE_BYTES)"), (MASK, "50000 pixels (MAX_IMAGE_PIXELS)"))
    for image, limit in cases:
        for request in (
            {"json": {**JOB, "image": base64_of(image)}},
            {"data": form(("image", image), prompt="a boat")},
        ):
            status, problem = await sent(client, **request)
            said = problem.get("errors", {}).get("image", [problem["detail"]])[0]
            assert (status, limit in said) in ((400, True), (413, False))
    await emptied(client)


async def test_a_long_text_in_a_field_that_there_is_not_is_refused_by_its_name(service: Any):
    """As a short one is; in a field that there is, the whole body is too large."""
    long = "a" * 70_000
    status, problem = await sent(service, json={**JOB, "promt": long})
    assert (status, list(problem["errors"])) == (400, ["promt"])
    assert "did you mean prompt?" in problem["errors"]["promt"][0]
    status, problem = await sent(service, json={**JOB, "prompt": long})
    assert (status, problem["code"]) == (413, "body_too_large")


async def test_a_form_is_checked_as_json_is(service: Any):
    """Numbers, flags and objects are read; what is wrong is said by name."""
    fields = {"prompt": "a boat", "steps": "4", "width": "256", "height": "256"}
    good = {**fields, "mask_invert": "true", "pad": '{"left": 64}', "seed": "", "webhook": ""}
    status, problem = await sent(service, data=form(("image", IMAGE), ("mask", MASK), **good))
    assert (status, set(problem.get("errors", {}))) == (400, {"webhook"})
    del good["webhook"]
    status, made = await sent(service, data=form(("image", IMAGE), ("mask", MASK), **good))
    assert status == 200
    assert made["metadata"]["mask_invert"] is True
    assert made["metadata"]["pad"]["left"] == 64

    status, problem = await sent(service, data=form(steps="many", prompt="a", stepz="1"))
    assert status == 400
    assert set(problem["errors"]) == {"steps", "stepz"}


async def test_an_idempotency_key_compares_images(serve: Any, tmp_path: Any):
    """By their digests, in whatever form they come."""
    service = await serve(data_dir=str(tmp_path))
    fields = {name: str(value) for name, value in JOB.items()}
    headers = {"Idempotency-Key": "once"}
    body = {**JOB, "image": base64_of(LARGE)}
    status, first = await sent(service, "/jobs", json=body, headers=headers)
    assert status == 202

    again = [
        await sent(service, "/jobs", json=body, headers=headers),
        await sent(service, "/jobs", data=form(("image", LARGE), **fields), headers=headers),
        await sent(service, "/jobs", json={**JOB, "image": base64_of(IMAGE)}, headers=headers),
        await sent(service, "/jobs", data=form(("image", IMAGE), **fields), headers=headers),
    ]

    assert [answer.get("id") for _, answer in again[:2]] == [first["id"]] * 2
    assert [status for status, _ in again[2:]] == [409, 409]
    await emptied(service)


async def test_a_packed_body_has_the_limit_of_one_without_images(service: Any):
    """Images do not shrink, and bombs would."""
    zipped = gzip.compress(json.dumps({**JOB, "image": "A" * 400_000}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    for data in (zipped, os.urandom(70_000)):
        status, problem = await sent(service, data=data, headers=headers)
        assert (status, problem["code"]) == (413, "body_too_large")
        assert "Content-Encoding" in problem["detail"]


async def test_a_body_that_breaks_off_leaves_nothing(service: Any):
    """Its client hangs up in the middle of an image."""
    _, writer = await asyncio.open_connection(service.server.host, service.server.port)
    head = (
        f"POST /generate HTTP/1.1\r\nHost: localhost:{service.server.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 9000000\r\n\r\n"
    )
    writer.write(head.encode() + b'{"prompt": "a", "image": "' + b"A" * 600_000)
    await writer.drain()
    while left(service) == 0:
        async with service.get("/health/live"):
            pass
    writer.close()
    await emptied(service)


async def test_a_slow_body_leaves_nothing(serve: Any):
    """408 when its time is over."""
    client = await serve(body_timeout_seconds=0.2)

    async def pieces() -> Any:
        yield b'{"prompt": "a", "image": "' + b"A" * 600_000
        await asyncio.Event().wait()

    headers = {"Content-Type": "application/json"}
    async with client.post("/generate", data=pieces(), headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (408, "timeout")
    await emptied(client)


async def test_a_caller_has_a_share_of_the_store(serve: Any):
    """429 with the time to try again, and then there is room again."""
    client = await serve(uploads_max_bytes=2**20, uploads_max_bytes_per_key=200_000)
    status, problem = await sent(client, json={**JOB, "image": base64_of(LARGE)})
    assert (status, problem["code"]) == (429, "too_many_uploads")
    await emptied(client)
    assert (await sent(client, json={**JOB, "image": base64_of(IMAGE)}))[0] == 200
