"""``Idempotency-Key``: which requests are the same one, and which keys are one key."""

import json
from typing import Any

import pytest

from tests.support.job_service import BODY, ask, service, until
from tests.support.simulation.fake_engine import FakeEngine

SMALL = {"prompt": "a cat", "width": 256, "height": 256, "steps": 2}
ALIKE = [
    '{"prompt": "a cat", "width": 256, "height": 256, "steps": 2, "seed": 7}',
    '{"seed": 7, "steps": 2, "height": 256, "width": 256, "prompt": "a cat"}',
    '{"prompt":"a cat","width":256.0,"height":2.56e2,"steps":2.0,"seed":7.0}',
    '{"prompt": "a c\\u0061t", "width": 256, "height": 256, "steps": 20e-1, "seed": 70E-1}',
    (
        '{"prompt": "a cat", "negative_prompt": "", "width": 256, "height": 256, "steps": 2,'
        ' "seed": 7, "guidance_scale": 7.5, "sampler": "dpmpp_2m", "num_images": 1}'
    ),
    (
        '{"prompt": "a cat", "negative_prompt": null, "width": 256, "height": 256, "steps": 2,'
        ' "seed": 7, "guidance_scale": null, "sampler": null, "num_images": null}'
    ),
]
"""One request in many spellings."""


def sent(text: str, key: str = "order-1") -> dict[str, Any]:
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    return {"data": text, "headers": headers}


@pytest.mark.parametrize("again", ALIKE)
async def test_requests_are_compared_by_what_they_mean(tmp_path, again):
    """Numbers, order, escapes, defaults and null may be written in other ways, on both routes."""
    engine = FakeEngine()
    async with service(tmp_path, engine) as client:
        job = (await ask(client, "POST", "/jobs", 202, **sent(ALIKE[0])))["id"]
        await until(client, job, "succeeded")
        assert (await ask(client, "POST", "/jobs", 200, **sent(again)))["id"] == job
        async with client.post("/generate", **sent(again)) as answer:
            assert (answer.status, answer.headers["Idempotent-Replayed"]) == (200, "true")
        assert engine.steps == 2


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({}, {"timeout_seconds": 300}),
        ({"timeout_seconds": None}, {"timeout_seconds": 300.0}),
        ({"timeout_seconds": 60}, {"timeout_seconds": 60.0}),
        ({}, {"webhook": ""}),
        ({}, {"webhook": None}),
        ({"guidance_scale": 0}, {"guidance_scale": -0.0}),
        ({"guidance_scale": 7}, {"guidance_scale": 7.0}),
        ({}, {"seed": None}),
        ({}, {"seed": -1}),
        ({"seed": -1}, {"seed": -1.0}),
        ({"seed": 0}, {"seed": -0.0}),
    ],
)
async def test_what_is_left_out_is_what_is_meant(tmp_path, first, again):
    """Also where the service draws the seed: the second request gets the first one's."""
    async with service(tmp_path) as client:
        one, two = json.dumps(SMALL | first), json.dumps(SMALL | again)
        job = await ask(client, "POST", "/jobs", 202, **sent(one))
        await until(client, job["id"], "succeeded")
        assert (await ask(client, "POST", "/jobs", 200, **sent(two)))["id"] == job["id"]


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a cat "},
        {"negative_prompt": "fog"},
        {"steps": 3},
        {"width": 320},
        {"guidance_scale": 7.4999},
        {"sampler": "ddim"},
        {"num_images": 2},
        {"seed": 0},
        {"seed": None},
        {"seed": 8},
        {"timeout_seconds": 299},
        {"webhook": "https://example.org/"},
    ],
)
async def test_another_request_is_a_conflict(tmp_path, other):
    """Any field that means something else."""
    async with service(tmp_path) as client:
        await ask(client, "POST", "/jobs", 202, **sent(ALIKE[0]))
        text = json.dumps(json.loads(ALIKE[0]) | other)
        problem = await ask(client, "POST", "/jobs", 409, **sent(text))
        assert problem["code"] == "idempotency_conflict"


@pytest.mark.parametrize("path", ["/jobs", "/generate"])
async def test_two_keys_of_one_request_are_refused(tmp_path, path):
    """Neither can be chosen for the client; one that a proxy has doubled is one."""
    async with service(tmp_path) as client:
        for keys, wrong in ((("a", "b"), True), (("a", ""), True), (("a", "a"), False)):
            headers = [("Idempotency-Key", key) for key in keys]
            async with client.post(path, json=BODY, headers=headers) as answer:
                body = await answer.json()
            assert (answer.status == 400) is wrong
            if wrong:
                assert body["errors"] == {
                    "Idempotency-Key": ["is given more than once; send one value"]
                }


async def test_a_key_with_a_comma_is_one_key(tmp_path):
    """A list is no form of this header."""
    async with service(tmp_path) as client:
        first, second = [
            (await ask(client, "POST", "/jobs", 202, **sent(ALIKE[0], key)))["id"]
            for key in ("a, b", "a")
        ]
        assert first != second


async def test_other_defaults_after_a_restart_change_no_repetition(tmp_path):
    """The client sends what it sent before, and knows nothing of the settings."""
    body = json.dumps({"prompt": "a cat", "width": 256, "height": 256})
    async with service(tmp_path, default_steps=2) as client:
        job = (await ask(client, "POST", "/jobs", 202, **sent(body)))["id"]
        await until(client, job, "succeeded")
    async with service(tmp_path, default_steps=3, request_timeout_seconds=200) as client:
        assert (await ask(client, "POST", "/jobs", 200, **sent(body)))["id"] == job
