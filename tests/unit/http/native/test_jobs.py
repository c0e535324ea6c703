"""Jobs that outlive their connection, over an engine whose steps the test decides."""

import asyncio
import io
import json
import os

import pytest
from PIL import Image

from service.access.allowance import Limits
from service.app import create_app
from service.config.credentials import Keys
from service.config.table import Config
from service.errors import ConfigError
from service.http.state import ALLOWANCE, DURABLE, METRICS
from tests.support.job_service import BODY, ask, events, service, until
from tests.support.simulation.fake_engine import FakeEngine

KEYS = "alice:" + "0f3a9c5e7b1d2846" * 2 + ",bob:" + "8d1e6f0a4c7b3952" * 2
ALICE = {"Authorization": "Bearer " + "0f3a9c5e7b1d2846" * 2}
BOB = {"Authorization": "Bearer " + "8d1e6f0a4c7b3952" * 2}


async def test_a_job_is_accepted_watched_and_fetched(tmp_path):
    """202 with a place to look at; then events to the end, the metadata and the image."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        async with client.post("/jobs", json=BODY) as answer:
            assert answer.status == 202
            job = await answer.json()
            assert answer.headers["Location"] == f"/jobs/{job['id']}"
        watching = asyncio.create_task(events(client, job["id"]))
        await engine.jobs(1)
        async with client.get(f"/jobs/{job['id']}/image") as answer:
            assert answer.status == 409
        await engine.step(2)
        told = await watching
        assert [event["event"] for event in told][-1] == "finished"
        assert json.loads(told[-2]["data"])["step"] == 2
        found = await ask(client, "GET", f"/jobs/{job['id']}", 200)
        assert (found["state"], found["metadata"]["seed"]) == ("succeeded", 7)
        assert await events(client, job["id"]) == [
            {"event": "finished", "data": json.dumps({"id": job["id"]})}
        ]


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("webp", "WEBP"), ("jpeg", "JPEG")])
async def test_an_image_comes_in_the_format_that_is_asked_for(tmp_path, name, kind):
    """By ``?format=`` or by ``Accept``, in the spellings that clients use."""
    names = [name, name.upper(), *({"jpeg": ["jpg", "JPG"]}.get(name, []))]
    asked = [pair for n in names for pair in ((f"?format={n}", "*/*"), ("", f"image/{n}"))]
    async with service(tmp_path) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        await until(client, job, "succeeded")
        for query, accept in asked:
            async with client.get(
                f"/jobs/{job}/image{query}", headers={"Accept": accept}
            ) as answer:
                assert answer.content_type == f"image/{name}"
                image = Image.open(io.BytesIO(await answer.read()))
            assert (image.format, image.size) == (kind, (256, 256))


async def test_null_fields_of_a_job_are_left_out(tmp_path):
    """Also those that only a job has; its metadata name the seed that was drawn."""
    empty = dict.fromkeys(("seed", "timeout_seconds", "webhook", "sampler"))
    async with service(tmp_path) as client:
        job = await ask(client, "POST", "/jobs", 202, json={**BODY, **empty})
        assert job["webhook"] is None
        found = await until(client, job["id"], "succeeded")
        assert 0 <= found["metadata"]["seed"] < 2**32
        assert found["metadata"]["sampler"] == "dpmpp_2m"


@pytest.mark.parametrize("name", ["", "gif", "image/png", "jpeg2000", "p\u0131g"])
async def test_another_format_is_refused_with_those_there_are(tmp_path, name):
    """400, whatever Accept says."""
    async with service(tmp_path) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        await until(client, job, "succeeded")
        problem = await ask(client, "GET", f"/jobs/{job}/image?format={name}", 400)
        assert problem["errors"] == {"format": ["must be one of png, webp, jpeg"]}


async def test_cancelling_ends_that_job_and_no_other(tmp_path):
    """Waiting or running; afterwards it stays cancelled."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, max_concurrent_requests=1) as client:
        running = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        await engine.jobs(1)
        waiting = await ask(client, "POST", "/jobs", 202, json=BODY)
        assert (waiting["state"], waiting["progress"]["position"]) == ("queued", 1)
        for job in (waiting["id"], running):
            assert (await ask(client, "DELETE", f"/jobs/{job}", 200))["state"] == "cancelled"
        assert engine.cancelled == [running]
        assert (await ask(client, "DELETE", f"/jobs/{running}", 200))["state"] == "cancelled"


async def test_the_same_request_with_the_same_key_is_one_job(tmp_path):
    """However often it is sent; another request with that key is refused."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        key = {"Idempotency-Key": "order-1"}
        sent = [
            asyncio.create_task(ask(client, "POST", "/jobs", 202, json=BODY, headers=key))
            for _ in range(3)
        ]
        ids = {job["id"] for job in await asyncio.gather(*sent)}
        assert len(ids) == 1
        await engine.jobs(1)
        await engine.step(2)
        await until(client, *ids, "succeeded")
        again = await ask(client, "POST", "/jobs", 200, json=BODY, headers=key)
        assert {again["id"]} == ids
        problem = await ask(client, "POST", "/jobs", 409, json=BODY | {"seed": 8}, headers=key)
        assert problem["code"] == "idempotency_conflict"


async def test_what_was_accepted_is_run_after_a_restart(tmp_path):
    """A service that ends with a job in work and one in line leaves both to the next."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, max_concurrent_requests=1) as client:
        jobs = [(await ask(client, "POST", "/jobs", 202, json=BODY))["id"] for _ in range(2)]
        await engine.jobs(1)
    async with service(tmp_path) as client:
        for job in jobs:
            assert (await until(client, job, "succeeded"))["metadata"]["seed"] == 7
        page = await ask(client, "GET", "/jobs", 200)
        assert [job["id"] for job in page["jobs"]] == jobs[::-1]


async def test_a_deadline_ends_a_job_that_waits(tmp_path):
    """With 408 as its reason."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        late = {**BODY, "timeout_seconds": 0.05}
        job = (await ask(client, "POST", "/jobs", 202, json=late))["id"]
        assert (await until(client, job, "failed"))["error"]["code"] == "timeout"


async def test_jobs_of_one_key_are_invisible_to_another(tmp_path):
    """Shown, listed, cancelled and fetched by their owner only: to others there is no such job."""
    async with service(tmp_path, api_keys=Keys(KEYS)) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY, headers=ALICE))["id"]
        await until(client, job, "succeeded", headers=ALICE)
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/image"), ("GET", "/events")):
            await ask(client, method, f"/jobs/{job}{path}", 404, headers=BOB)
        assert (await ask(client, "GET", "/jobs", 200, headers=BOB))["jobs"] == []
        assert len((await ask(client, "GET", "/jobs", 200, headers=ALICE))["jobs"]) == 1
        await ask(client, "GET", f"/jobs/{job}", 401)


@pytest.fixture
def everybody():
    """Make new files everybody's, as far as the service does not say otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("everybody")
async def test_what_people_think_and_make_is_private(tmp_path):
    """The folder that the service makes, and all that is in it, while it runs and afterwards."""
    folder = tmp_path / "data"
    async with service(folder) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        await until(client, job, "succeeded")
        found = [folder, *folder.rglob("*")]
    assert {path.suffix for path in found} >= {".zip"}
    found += [path for path in folder.rglob("*") if path not in found]
    assert [path.name for path in found if path.exists() and path.stat().st_mode & 0o077] == []


async def test_pages_go_on_where_the_last_one_ended(tmp_path):
    """The newest first, in any number of pages."""
    async with service(tmp_path) as client:
        jobs = [(await ask(client, "POST", "/jobs", 202, json=BODY))["id"] for _ in range(5)]
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await ask(client, "GET", f"/jobs?limit=2{cursor and f'&cursor={cursor}'}", 200)
            seen += [job["id"] for job in page["jobs"]]
            cursor = page["cursor"]
        assert seen == jobs[::-1]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/jobs?limit=0", "limit"),
        ("/jobs?limit=x", "limit"),
        ("/jobs?limit=" + "9" * 5000, "limit"),
        ("/jobs?limit=%D9%A3", "limit"),  # An Arabic three.
        ("/jobs?state=done", "state"),
        ("/jobs?cursor=x", "cursor"),
    ],
)
async def test_a_wrong_query_is_named(tmp_path, path, field):
    """With the limit and the cure."""
    async with service(tmp_path) as client:
        assert field in (await ask(client, "GET", path, 400))["errors"]


async def test_a_parameter_with_two_values_is_refused(tmp_path):
    """On every route that is described with a query; the same value twice is one."""
    valid = {"format": "png", "index": "0", "preview": "false", "limit": "5", "state": "failed"}
    async with service(tmp_path) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        await until(client, job, "succeeded")
        described = (await ask(client, "GET", "/openapi.json", 200))["paths"]
        asked = {
            (path.format(id=job), parameter["name"])
            for path, methods in described.items()
            if not path.startswith(("/v1/", "/sdapi/"))
            for operation in methods.values()
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "query"
        }
        assert {name for _, name in asked} == {*valid, "cursor"}
        for path, name in asked:
            value = valid.get(name, job)
            for other in ("nope", ""):
                refused = await ask(client, "GET", f"{path}?{name}={value}&{name}={other}", 400)
                assert refused["errors"] == {name: ["is given more than once; send one value"]}
            async with client.get(f"{path}?{name}={value}&{name}={value}") as answer:
                assert answer.status == 200


async def test_a_number_of_an_image_is_no_longer_than_a_number(tmp_path):
    """Python reads no integer of more than 4,300 digits."""
    async with service(tmp_path) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        await until(client, job, "succeeded")
        path = f"/jobs/{job}/image?index={'9' * 5000}"
        assert "index" in (await ask(client, "GET", path, 400))["errors"]


@pytest.mark.parametrize("key", ["\u00e9", "k" * 256, "", "a\tb"])
async def test_an_idempotency_key_is_what_every_header_can_carry(tmp_path, key):
    """As the description says it: 1 to 255 printable ASCII characters."""
    async with service(tmp_path) as client:
        headers = {"Idempotency-Key": key}
        found = await ask(client, "POST", "/jobs", 400, json=BODY, headers=headers)
        assert "Idempotency-Key" in found["errors"]


@pytest.mark.parametrize("held_up", ["find", "add"])
async def test_a_client_that_leaves_during_the_acceptance_gets_nothing_for_nothing(
    tmp_path, monkeypatch, held_up
):
    """What is made is paid for, or deadlines that short would pass a quota by."""
    async with service(tmp_path, api_keys=Keys(KEYS), quota_images_per_day=10) as client:
        store, gate = client.app[DURABLE].store, asyncio.Event()
        whole = getattr(store, held_up)

        async def slow(*args):
            await gate.wait()
            return await whole(*args)

        monkeypatch.setattr(store, held_up, slow)
        headers = {**ALICE, "X-Request-Timeout": "0.05", "Idempotency-Key": "a"}
        await ask(client, "POST", "/jobs", 408, json=BODY, headers=headers)
        gate.set()
        monkeypatch.undo()
        # The next one is accepted after it, in turn.
        last = await ask(client, "POST", "/jobs", 202, json=BODY, headers=ALICE)
        await until(client, last["id"], "succeeded", headers=ALICE)
        found = (await ask(client, "GET", "/jobs", 200, headers=ALICE))["jobs"]
        assert len(found) == 2
        limits = Limits(images_per_day=10)
        now = client.app[ALLOWANCE].images_left("alice", limits)
        assert now is not None
        assert now.remaining == 8


async def test_a_refused_job_counts_as_refused_and_as_nothing_else(tmp_path):
    """What was never accepted has no end."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, queue_size=1, max_concurrent_requests=1) as client:
        for _ in range(2):
            await ask(client, "POST", "/jobs", 202, json=BODY)
        await ask(client, "POST", "/jobs", 503, json=BODY)
        registry = client.app[METRICS].registry
        labels = {"api": "native", "outcome": "cancelled", "code": ""}
        ended = registry.get_sample_value("sd_jobs_total", labels)
        assert not ended


async def test_a_webhook_to_a_private_address_is_refused_at_once(tmp_path):
    """Before anything is accepted."""
    async with service(tmp_path) as client:
        body = BODY | {"webhook": "http://127.0.0.1:9/x"}
        assert "webhook" in (await ask(client, "POST", "/jobs", 400, json=body))["errors"]
        assert (await ask(client, "GET", "/jobs", 200))["jobs"] == []


async def test_without_a_folder_no_jobs_are_taken():
    """The answer says which setting is missing."""
    async with service("") as client:
        assert "DATA_DIR" in (await ask(client, "POST", "/jobs", 503, json=BODY))["detail"]


async def test_generate_can_answer_at_once(tmp_path):
    """With ``Prefer: respond-async`` it is the same as POST /jobs."""
    async with service(tmp_path) as client:
        headers = {"Prefer": "respond-async, wait=10"}
        async with client.post("/generate", json=BODY, headers=headers) as answer:
            assert (answer.status, answer.headers["Preference-Applied"]) == (202, "respond-async")
            job = (await answer.json())["id"]
        assert (await until(client, job, "succeeded"))["metadata"]["seed"] == 7
        body = BODY | {"timeout_seconds": 5, "webhook": "https://127.0.0.1/"}
        refused = await ask(client, "POST", "/generate", 400, json=body, headers=headers)
        assert list(refused["errors"]) == ["webhook"]
        del body["webhook"]
        job = await ask(client, "POST", "/generate", 202, json=body, headers=headers)
        assert job["deadline_at"] - job["created_at"] == pytest.approx(5)
        refused = await ask(client, "POST", "/generate", 400, json=body)
        assert list(refused["errors"]) == ["timeout_seconds"]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("0.05", 408),
        *((given, 408) for given in ("5e-2", ".05", "+0.05")),
        *((given, 400) for given in ("0", "x", "9e9", "-1", "nan", "inf", "1e", ".", "")),
        *((given, 400) for given in ("1_0", "\uff11\uff10", "\u0661", "1\u0660", "0x1")),
    ],
)
async def test_a_client_may_set_its_own_deadline(tmp_path, given, status):
    """Within REQUEST_TIMEOUT_SECONDS; the GPU is free when it is over."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        headers = {"X-Request-Timeout": given}
        problem = await ask(client, "POST", "/generate", status, json=BODY, headers=headers)
        assert "X-Request-Timeout" in json.dumps(problem)
        assert engine.batch == {}


async def test_two_deadlines_in_the_header_are_refused(tmp_path):
    """Neither of them is what the client meant; the same one twice is."""
    async with service(tmp_path) as client:
        headers = [("X-Request-Timeout", "9"), ("X-Request-Timeout", "0.05")]
        refused = await ask(client, "POST", "/generate", 400, json=BODY, headers=headers)
        assert refused["errors"] == {
            "X-Request-Timeout": ["is given more than once; send one value"]
        }
        await ask(client, "POST", "/generate", 200, json=BODY, headers=headers[:1] * 2)


@pytest.mark.parametrize(
    ("field", "header", "given"), [(None, "7", 7), (5, "7", 5), (9, "7", 7), (5, None, 5)]
)
async def test_a_job_has_the_shorter_of_its_two_deadlines(tmp_path, field, header, given):
    """That of its body, and that of the header which every request may carry."""
    body = BODY if field is None else BODY | {"timeout_seconds": field}
    headers = {} if header is None else {"X-Request-Timeout": header}
    async with service(tmp_path) as client:
        job = await ask(client, "POST", "/jobs", 202, json=body, headers=headers)
        assert job["deadline_at"] - job["created_at"] == pytest.approx(given)


async def test_an_unknown_job_is_not_found(tmp_path):
    """Rather than looking finished."""
    async with service(tmp_path) as client:
        assert (await ask(client, "GET", f"/jobs/{'0' * 32}", 404))["code"] == "not_found"


async def test_images_that_cannot_be_kept_end_their_job(tmp_path, monkeypatch):
    """A fault nobody thought of fails the job; it is not left running for ever."""

    def broken(*_args):
        raise RuntimeError("no PNG today")

    monkeypatch.setattr("service.images.encode.png", broken)
    async with service(tmp_path) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        assert (await until(client, job, "failed"))["error"]["code"] == "generation_failed"


def test_a_webhook_secret_that_is_too_short_is_a_wrong_setting(tmp_path):
    """It is named at the start, without a traceback."""
    config = Config(data_dir=str(tmp_path), webhook_secret="short")  # noqa: S106 - it is refused
    with pytest.raises(ConfigError, match="WEBHOOK_SECRET"):
        create_app(config, FakeEngine())
