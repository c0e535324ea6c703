"""Pairs of sampler and steps that the loaded model cannot be drawn with."""

import asyncio
from dataclasses import replace

import pytest

from service.config import SAMPLERS
from service.diffusion.generation import GenerationRequest, ModelInfo
from service.engine.fake import FAKE_MODEL, FakeEngine
from service.errors import SamplerUnsuitable, ValidationFailed
from service.http.keys import CONSUMER
from service.http.sampling import demand_sampler

EVERY = dict.fromkeys(SAMPLERS, ((1, 50),))
ZERO_SNR = replace(FAKE_MODEL, samplers={**EVERY, "dpmpp_2m_karras": ((1, 20),)})
CLEAN = replace(FAKE_MODEL, samplers={**EVERY, "pndm": (), "euler_a": ()})
SHORT = replace(FAKE_MODEL, samplers={**dict.fromkeys(SAMPLERS, ()), "ddim": ((1, 4), (6, 10))})


def refused(model: ModelInfo | None, sampler: str, steps: int) -> dict[str, list[str]]:
    """Return the fields that are told to be wrong; empty where none is."""
    try:
        demand_sampler(GenerationRequest(prompt="x", sampler=sampler, steps=steps), model)
    except ValidationFailed as error:
        return error.errors
    return {}


@pytest.mark.parametrize(
    ("model", "sampler", "steps"),
    [
        (None, "pndm", 50),
        (FAKE_MODEL, "pndm", 50),
        (ZERO_SNR, "dpmpp_2m_karras", 20),
        (ZERO_SNR, "dpmpp_2m", 50),
        (CLEAN, "ddim", 50),
        (SHORT, "ddim", 6),
    ],
)
def test_pairs_that_work(model: ModelInfo | None, sampler: str, steps: int) -> None:
    """What the model allows is not refused; nor is anything before a model is loaded."""
    assert refused(model, sampler, steps) == {}


@pytest.mark.parametrize(
    ("model", "sampler", "steps", "field", "words"),
    [
        (
            ZERO_SNR,
            "dpmpp_2m_karras",
            50,
            "steps",
            "must be 1-20 for dpmpp_2m_karras with this model; 50 steps work with ddim, dpmpp_2m,",
        ),
        (CLEAN, "pndm", 20, "sampler", "pndm cannot draw with this model; use ddim, dpmpp_2m,"),
        (SHORT, "ddim", 5, "steps", "must be 1-4, 6-10 for ddim with this model"),
        (SHORT, "euler", 50, "sampler", "use ddim with 1-4, 6-10 steps"),
        (SHORT, "euler", 3, "sampler", "euler cannot draw with this model; use ddim"),
    ],
)
def test_pairs_that_do_not(
    model: ModelInfo, sampler: str, steps: int, field: str, words: str
) -> None:
    """The answer names the field and the pairs that do work."""
    found = refused(model, sampler, steps)

    assert list(found) == [field]
    assert words in found[field][0]


@pytest.mark.parametrize("path", ["/generate", "/jobs"])
async def test_a_request_is_refused_before_it_waits(serve, path, tmp_path):
    """400 with the field, and nothing is queued or kept."""
    engine = FakeEngine(model=CLEAN)
    client = await serve(engine, data_dir=str(tmp_path / "data"))

    async with client.post(path, json={"prompt": "a boat", "sampler": "pndm"}) as answer:
        body = await answer.json(content_type=None)

    assert (answer.status, body["code"]) == (400, "validation_error")
    assert (
        "use ddim, dpmpp_2m, dpmpp_2m_karras, euler, heun, lcm, unipc"
        in body["errors"]["sampler"][0]
    )
    assert (engine.batch, engine.steps) == ({}, 0)
    async with client.get("/jobs") as answer:
        assert (await answer.json())["jobs"] == []


async def test_a_request_that_came_before_the_model(serve):
    """The engine refuses what waited while nothing was known of the model: 400 again."""
    engine = FakeEngine(step_seconds=None, loads=False)
    client = await serve(engine)

    async def draw() -> tuple[int, str]:
        async with client.post("/generate", json={"prompt": "a boat", "sampler": "pndm"}) as answer:
            return answer.status, (await answer.json(content_type=None))["code"]

    waiting = asyncio.create_task(draw())
    while client.app[CONSUMER].depth != 1:
        async with client.get("/health/live"):
            pass
    engine.become_ready()
    await engine.jobs(1)
    engine.fail(SamplerUnsuitable.code, "The sampler pndm cannot take 20 steps with this model.")

    assert await waiting == (400, "sampler_unsuitable")
