"""Table api x guarantee: whichever API a request comes through, the same holds for it."""

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient
from PIL import Image

from service.config.credentials import Keys
from service.core.events import JobFinished
from service.engine.protocol import Event
from service.http.state import METRICS
from tests.support.images import files
from tests.support.job_service import service
from tests.support.simulation.fake_engine import FakeEngine

ANNA, BEN = "0123456789abcdef" * 2, "fedcba9876543210" * 2
KEYS = Keys(f"anna:{ANNA},ben:{BEN}")
SMALL = {"prompt": "a boat", "width": 256, "height": 256, "steps": 4, "seed": 7}
SECONDS = 20


def basic(key: str) -> str:
    """Return a key as the password of Basic authentication."""
    return "Basic " + base64.b64encode(f"anybody:{key}".encode()).decode()


def bearer(key: str) -> str:
    """Return a key as a Bearer token."""
    return f"Bearer {key}"


def native_code(body: Any) -> str:
    return str(body["code"])


def openai_code(body: Any) -> str:
    return str(body["error"]["code"])


def streamed_images(text: str) -> list[str]:
    """Return the images of a stream, partial ones included."""
    lines = [line for line in text.splitlines() if line.startswith("data: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    return [each["b64_json"] for each in events if "b64_json" in each]


@dataclass(frozen=True, kw_only=True)
class Face:
    """How an API is used."""

    path: str
    body: Mapping[str, Any]
    label: str
    credentials: Callable[[str], str] = bearer
    headers: Mapping[str, str] = field(default_factory=dict)
    images: Callable[[str], list[str]]
    """Images in base64 in the text of a good answer."""
    code: Callable[[Any], str]
    """What tells errors apart in the body of one."""
    codes: Mapping[str, str] = field(default_factory=dict)
    """Codes that differ from those of the native API."""
    errors_in_stream: bool = False
    charged: int = 1
    """Images of a quota that a request counts as."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files by name; with any, a request is a form."""


OPENAI_CODES = {
    "unauthorized": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "quota_exceeded": "insufficient_quota",
}
DETAILS = {
    "unauthorized": "Incorrect username or password",
    "rate_limited": "Too Many Requests",
    "quota_exceeded": "Too Many Requests: the quota of images is used up",
    "timeout": "Timeout",
    "idempotency_conflict": "Conflict: the idempotency key was used for another request",
}
"""AUTOMATIC1111's form has no codes; the title of an error is in ``error``."""

NATIVE = Face(
    path="/generate",
    body=SMALL,
    label="native",
    images=lambda text: [json.loads(text)["image_base64"]],
    code=native_code,
)
OPENAI = Face(
    path="/v1/images/generations",
    body=SMALL,
    label="openai",
    images=lambda text: [each["b64_json"] for each in json.loads(text)["data"]],
    code=openai_code,
    codes=OPENAI_CODES,
)
SDAPI = Face(
    path="/sdapi/v1/txt2img",
    body=SMALL,
    label="sdapi",
    credentials=basic,
    images=lambda text: list(json.loads(text)["images"]),
    code=lambda body: str(
        body["detail"] if body["detail"] == DETAILS["unauthorized"] else body["error"]
    ),
    codes=DETAILS,
)
PICTURE = files.png((256, 256))
"""The image that requests bring; all of it is redrawn, so that their steps count."""

FACES = {
    "native": NATIVE,
    "openai": OPENAI,
    "openai stream": replace(
        OPENAI,
        body={**SMALL, "stream": True, "partial_images": 3},
        images=streamed_images,
        errors_in_stream=True,
    ),
    "openai edit": replace(
        OPENAI,
        path="/v1/images/edits",
        body={**SMALL, "strength": 1},
        files={"image": PICTURE},
    ),
    "openai variation stream": replace(
        OPENAI,
        path="/v1/images/variations",
        body={**SMALL, "strength": 1, "stream": True, "partial_images": 3},
        files={"image": PICTURE},
        images=streamed_images,
        errors_in_stream=True,
    ),
    "sdapi": SDAPI,
    "sdapi img2img": replace(
        SDAPI,
        path="/sdapi/v1/img2img",
        body={
            **SMALL,
            "denoising_strength": 1,
            "init_images": [files.base64_of(PICTURE)],
            "mask": files.base64_of(files.mask((256, 256))),
        },
    ),
    "sdapi hires": replace(SDAPI, body={**SMALL, "enable_hr": True, "hr_scale": 1.5}, charged=4),
    "page": replace(NATIVE, label="page", headers={"X-Client": "page"}),
}

every_api = pytest.mark.parametrize("face", FACES.values(), ids=FACES)
Answer = tuple[int, str, Mapping[str, str]]


async def ask(client: Any, face: Face, key: str = ANNA, **more: str) -> Answer:
    """Ask for an image; return status, text and headers of the answer."""
    headers = {"Authorization": face.credentials(key), **face.headers, **more}
    headers = {name.replace("_", "-"): value for name, value in headers.items() if value}
    sent: dict[str, Any] = {"data": form_of(face)} if face.files else {"json": dict(face.body)}
    async with asyncio.timeout(SECONDS):
        async with client.post(face.path, headers=headers, **sent) as answer:
            return answer.status, await answer.text(), answer.headers


def form_of(face: Face) -> FormData:
    """Return a request as a form, its files first."""
    form = FormData(default_to_multipart=True)
    for name, data in face.files.items():
        form.add_field(name, data, filename="a.png", content_type="application/octet-stream")
    for name, value in face.body.items():
        form.add_field(name, value if isinstance(value, str) else json.dumps(value))
    return form


def failed(face: Face, answer: Answer, status: int, code: str) -> None:
    """Check that an answer is this error in the form of its API."""
    assert (answer[0], face.code(json.loads(answer[1]))) == (status, face.codes.get(code, code))
    assert answer[2]["X-Request-ID"]


def count(client: Any, name: str, **labels: str) -> float:
    """Return a metric."""
    return client.app[METRICS].registry.get_sample_value(name, labels) or 0.0


def ended(client: Any, face: Face, outcome: str) -> float:
    """Return how many jobs of an API ended so."""
    return count(client, "sd_jobs_total", api=face.label, outcome=outcome, code="")


@every_api
async def test_a_key_is_needed(tmp_path, face):
    """None and a wrong one are refused; a key opens in the scheme of the API's clients."""
    async with service(tmp_path, api_keys=KEYS) as client:
        failed(face, await ask(client, face, Authorization=""), 401, "unauthorized")
        failed(face, await ask(client, face, "wrong" * 8), 401, "unauthorized")
        status, text, _ = await ask(client, face)
        assert status == 200
        assert face.images(text)


@every_api
async def test_a_key_has_a_rate(tmp_path, face):
    """Beyond it 429, with the time to wait."""
    limits = {"rate_limit_per_minute": 1, "rate_limit_burst": 1}
    async with service(tmp_path, api_keys=KEYS, **limits) as client:
        assert (await ask(client, face))[0] == 200
        refused = await ask(client, face)
        failed(face, refused, 429, "rate_limited")
        assert 0 < int(refused[2]["Retry-After"]) <= 60
        assert (await ask(client, face, BEN))[0] == 200
        labels = {"api": face.label, "reason": "rate"}
        assert count(client, "sd_requests_refused_total", **labels) == 1


@every_api
async def test_a_key_has_a_quota(tmp_path, face):
    """Images of all APIs count for it."""
    async with service(tmp_path, api_keys=KEYS, quota_images_per_day=face.charged + 1) as client:
        assert (await ask(client, face))[0] == 200
        assert (await ask(client, NATIVE))[0] == 200
        failed(face, await ask(client, face), 429, "quota_exceeded")
        assert (await ask(client, face, BEN))[0] == 200


async def asking(client: Any, engine: FakeEngine, waits: Awaitable[object]) -> None:
    """Step until something has happened."""
    done = asyncio.ensure_future(waits)
    async with asyncio.timeout(SECONDS):
        while not done.done():
            await engine.step()
            async with client.get("/health/live"):
                pass
    await done


@every_api
async def test_keys_take_turns(tmp_path, face, queued):
    """The engine is given the one request of a second key before the flood of the first one."""
    engine = FakeEngine(step_seconds=None)
    limits = {"max_concurrent_requests": 1, "request_timeout_seconds": 60.0}
    async with service(tmp_path, engine, api_keys=KEYS, **limits) as client:

        async def one(key: str, prompt: str) -> None:
            drawn = replace(face, body={**face.body, "prompt": prompt})
            assert (await ask(client, drawn, key))[0] == 200

        flood = [asyncio.create_task(one(ANNA, "anna")) for _ in range(5)]
        await engine.jobs(1)
        await queued(client, 4)
        light = asyncio.create_task(one(BEN, "ben"))
        await queued(client, 5)
        await asking(client, engine, asyncio.gather(*flood, light))
        order = [request.prompt for request in engine.given]
        assert order.index("ben") <= 2
        assert sorted(order) == ["anna"] * 5 + ["ben"]


@every_api
async def test_a_client_that_hangs_up_frees_the_engine(tmp_path, face):
    """Within a step, and the metrics say why."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, api_keys=KEYS) as client:
        waiting = asyncio.create_task(ask(client, face))
        (job_id,) = await engine.jobs(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await engine.jobs(0)
        assert engine.cancelled == [job_id]
        async with asyncio.timeout(SECONDS):
            while not ended(client, face, "disconnected"):
                async with client.get("/health/live"):
                    pass


@every_api
async def test_a_deadline_ends_a_request_and_its_job(tmp_path, face):
    """408, or the event of an error where a stream has begun."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, api_keys=KEYS) as client:
        # A slow machine may need a part of a second until the job runs, or the stream has begun.
        answer = await ask(client, face, X_Request_Timeout="1.5")
        if face.errors_in_stream:
            assert answer[1].startswith("event: error")
            assert '"code": "timeout"' in answer[1]
        else:
            failed(face, answer, 408, "timeout")
        assert not engine.batch
        assert ended(client, face, "timed_out") == 1


@every_api
async def test_a_request_that_is_sent_again_is_not_done_twice(tmp_path, face):
    """With an idempotency key; the same key for another request is a conflict."""
    async with service(tmp_path, api_keys=KEYS) as client:
        first = await ask(client, face, Idempotency_Key="k")
        again = await ask(client, face, Idempotency_Key="k")
        assert again[2]["Idempotent-Replayed"] == "true"
        assert again[2]["X-Job-Id"] == first[2]["X-Job-Id"]
        opened = [[pixels(each) for each in face.images(one[1])][-1] for one in (first, again)]
        assert opened[0] == opened[1]
        other = replace(face, body={**face.body, "prompt": "a cat"})
        failed(face, await ask(client, other, Idempotency_Key="k"), 409, "idempotency_conflict")
        assert ended(client, face, "succeeded") == 1


@every_api
async def test_metrics_and_the_id_name_a_request(tmp_path, face):
    """Requests, jobs and their time by API; the client's id comes back."""
    async with service(tmp_path, api_keys=KEYS) as client:
        _, _, headers = await ask(client, face, X_Request_ID="mine")
        assert headers["X-Request-ID"] == "mine"
        assert ended(client, face, "succeeded") == 1
        route = {"route": face.path, "method": "POST", "status": "200"}
        assert count(client, "sd_http_requests_total", api=face.label, **route) == 1
        labels = {"api": face.label, "outcome": "succeeded"}
        assert count(client, "sd_job_duration_seconds_count", **labels) == 1
        accepted = {"api": face.label, "sampler": "dpmpp_2m"}
        assert count(client, "sd_jobs_accepted_total", **accepted) == 1


def pixels(image: str) -> bytes:
    """Return the pixels of an image in base64."""
    return Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB").tobytes()


class Checked(FakeEngine):
    """An engine whose checker flags every image, unfinished ones too, and blackens it."""

    def _tell(self, event: Event) -> None:
        if isinstance(event, JobFinished):
            black = [
                replace(each, pixels=bytes(len(each.pixels)), unsafe=True) for each in event.images
            ]
            event = replace(event, images=tuple(black))
        super()._tell(event)


@every_api
async def test_nothing_unsafe_is_shown(tmp_path, face):
    """No preview, no partial image; and of an interrupted job the black image."""
    engine = Checked(step_seconds=None)
    async with service(tmp_path, engine, api_keys=KEYS, safety_checker=True) as client:
        waiting = asyncio.create_task(ask(client, face, X_Request_ID="mine"))
        await engine.jobs(1)
        await engine.step()
        seen = await previews(client, face)
        await engine.step()
        assert not engine.watched
        assert not seen
        async with client.post("/jobs/mine/interrupt", headers=authorised(bearer)) as answer:
            assert answer.status == 200
        await asking(client, engine, waiting)
        status, text, _ = waiting.result()
        assert status == 200
        (image,) = face.images(text)
        assert not any(pixels(image))


def authorised(credentials: Callable[[str], str]) -> dict[str, str]:
    """Return the header with a key."""
    return {"Authorization": credentials(ANNA)}


async def previews(client: TestClient[Any, Any], face: Face) -> object:
    """Ask for a preview of the job as the clients of an API do; return what they are shown."""
    if face.label == "sdapi":
        async with client.get("/sdapi/v1/progress", headers=authorised(basic)) as answer:
            return (await answer.json())["current_image"]
    if face.label in {"native", "page"}:
        path = "/jobs/mine/events?preview=true"
        async with client.get(path, headers=authorised(bearer)) as answer:
            return None if answer.status == 400 else await answer.read()
    return None  # Partial images come in the stream itself.


@pytest.fixture
def queued() -> Callable[[Any, int], Awaitable[None]]:
    """Wait until this many requests wait in the queue."""

    async def until(client: Any, waiting: int) -> None:
        async with asyncio.timeout(SECONDS):
            while count(client, "sd_queue_depth") != waiting:
                async with client.get("/health/live"):
                    pass

    return until
