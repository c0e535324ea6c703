"""docker-compose.nginx.yml's configuration in front of the APIs that clients already have."""

import asyncio
import base64
import hashlib
import io
import json
import os
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from PIL import Image, PngImagePlugin

from service.config.addresses import Networks
from service.config.credentials import Keys
from service.http import event_stream
from tests.support.deploy.nginx import needs_nginx, nginx
from tests.support.deploy.proxied import PATIENCE, client_of, posted, two
from tests.support.simulation.fake_engine import FakeEngine

pytestmark = needs_nginx
GENERATIONS = "/v1/images/generations"
TOO_LARGE = "body_too_large"
BODY: dict[str, Any] = {"prompt": "a boat", "size": "256x256", "steps": 4, "seed": 7}


async def test_partial_images_arrive_as_they_are_made(tmp_path):
    """The first is there while the job still runs: nothing is collected on the way."""
    engine = FakeEngine(step_seconds=None)
    body = BODY | {"stream": True, "partial_images": 3}
    async with (
        two(tmp_path, engine) as (_, client),
        asyncio.timeout(PATIENCE),
        client.post(GENERATIONS, json=body) as stream,
    ):
        assert stream.content_type == "text/event-stream"
        while not engine.watched:
            async with client.get("/health/live"):
                pass
        await engine.step()
        while b"image_generation.partial_image" not in (
            part := await stream.content.readuntil(b"\n\n")
        ):
            assert part.startswith(b":"), part  # A sign of life.
        for _ in range(BODY["steps"] - 1):
            await engine.step()
        assert b"image_generation.completed" in await stream.content.read()


async def test_a_stream_that_is_left_frees_the_engine(tmp_path, monkeypatch):
    """The proxy hangs up, too, when the next comment cannot be delivered."""
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.5)
    engine = FakeEngine(step_seconds=None)
    async with two(tmp_path, engine) as (_, client), asyncio.timeout(PATIENCE):
        async with client.post(GENERATIONS, json=BODY | {"stream": True}) as stream:
            assert stream.status == 200
            (job,) = await engine.jobs(1)
        await engine.jobs(0)
        assert engine.cancelled == [job]


async def test_a_link_is_opened_wherever_its_image_is(tmp_path):
    """From another address than that of the caller, and with whichever service has it."""
    settings = {"trusted_proxies": Networks("127.0.0.1")}  # Whose word on TLS is believed.
    async with (
        two(tmp_path, **settings) as (proxy, client),
        client_of(proxy, "127.0.0.2") as other,
    ):
        for _ in range(4):
            status, _, answer = await posted(client, GENERATIONS, BODY | {"response_format": "url"})
            assert status == 200
            link = urlsplit(answer["data"][0]["url"])
            assert (link.scheme, link.path.split("/")[:3]) == ("https", ["", "v1", "images"])
            for _ in range(3):
                async with other.get(f"{link.path}?{link.query}") as image:
                    assert (image.status, image.content_type) == (200, "image/png")
        async with other.get(f"{link.path}?expires=1&signature=x") as refused:
            assert refused.status == 403


async def test_a_full_service_hands_over_to_the_other(tmp_path):
    """As with /generate: an image needs nothing but its request."""
    engines = [FakeEngine(step_seconds=None) for _ in range(2)]
    full = {"queue_size": 1, "max_concurrent_requests": 1}
    async with two(tmp_path, *engines, **full) as (proxy, client), asyncio.timeout(PATIENCE):
        asked = [asyncio.create_task(posted(client, GENERATIONS, BODY)) for _ in range(4)]
        while not all(task.done() for task in asked):
            await asyncio.gather(*(engine.step() for engine in engines))
        assert [task.result()[0] for task in asked] == [200] * 4
        lines = [json.loads(line) for line in proxy.log.splitlines()]
        assert len({port for line in lines for port in line["upstream"].split(", ")}) == 2


def told_to_openai(answer: dict[str, Any]) -> tuple[str, str]:
    """Return type and code as OpenAI's packages read them; the words are those of the problem."""
    error = answer["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["message"], error["code"]) == (answer["detail"], answer["code"])
    return error["type"], error["code"]


async def test_what_the_proxy_refuses_is_read_by_openais_clients(tmp_path):
    """Too large and too many."""
    changed = {"RATE": "1r/m", "BURST": "1"}
    async with two(tmp_path, FakeEngine(), changed=changed) as (_, client):
        status, _, answer = await posted(client, GENERATIONS, BODY | {"prompt": "x" * 70_000})
        assert (status, *told_to_openai(answer)) == (413, "invalid_request_error", TOO_LARGE)
        answers = [await posted(client, GENERATIONS, BODY) for _ in range(3)]
        status, headers, answer = answers[-1]
        assert (status, *told_to_openai(answer)) == (429, "rate_limit_error", "rate_limited")
        assert headers["Retry-After"] == "1"


async def test_a_service_that_is_late_or_gone_is_told_to_openais_clients(tmp_path):
    """What takes too long is not to be sent again; nobody there is."""
    engine = FakeEngine(step_seconds=None)
    async with two(tmp_path, engine, changed={"ANSWER_SECONDS": "1"}) as (_, client):
        status, headers, answer = await posted(client, GENERATIONS, BODY)
        assert (status, *told_to_openai(answer)) == (504, "server_error", "gateway_timeout")
        assert headers["x-should-retry"] == "false"
    async with nginx([1]) as proxy, client_of(proxy) as client:
        status, headers, answer = await posted(client, GENERATIONS, BODY)
        assert (status, *told_to_openai(answer)) == (502, "server_error", "bad_gateway")
        assert "x-should-retry" not in headers


async def test_an_image_to_read_may_be_large_and_nothing_else(tmp_path):
    """The limit of the service holds for it, and the usual one for other requests."""
    image = Image.frombytes("RGB", (480, 480), os.urandom(3 * 480 * 480))
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=told(parameters="a boat\nSteps: 4, Sampler: Euler, Seed: 7"))
    body = {"image": base64.b64encode(file.getvalue()).decode()}
    assert len(body["image"]) > 900_000
    async with two(tmp_path) as (_, client):
        status, _, answer = await posted(client, "/sdapi/v1/png-info", body)
        assert (status, answer["info"].splitlines()[0]) == (200, "a boat")
        status, _, answer = await posted(client, "/sdapi/v1/txt2img", {"prompt": "x" * 70_000})
        assert (status, answer["code"]) == (413, TOO_LARGE)


def told(**texts: str) -> PngImagePlugin.PngInfo:
    """Return what goes into a PNG as text."""
    chunks = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        chunks.add_text(name, text)
    return chunks


async def test_a_callers_options_are_found_again(tmp_path):
    """Every request of a key goes to the same service; those of another may go elsewhere."""
    keys = [hashlib.sha256(bytes([number])).hexdigest() for number in range(20)]
    named = Keys(",".join(f"key{number}:{secret}" for number, secret in enumerate(keys)))
    async with two(tmp_path, changed={"BURST": "200"}, api_keys=named) as (proxy, client):
        for number, secret in enumerate(keys):
            basic = {"Authorization": aiohttp.encode_basic_auth("any", secret)}
            quality = 50 + number
            wanted = {"jpeg_quality": quality}
            assert (await posted(client, "/sdapi/v1/options", wanted, headers=basic))[0] == 200
            async with client.get("/sdapi/v1/options", headers=basic) as answer:
                assert (await answer.json())["jpeg_quality"] == quality
        used = {json.loads(line)["upstream"] for line in proxy.log.splitlines()}
    assert len(used) == 2, "all keys went to one service"
