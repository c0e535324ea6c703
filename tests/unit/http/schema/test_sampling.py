"""Pairs of sampler and steps that the loaded model cannot be drawn with."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from service.core.inputs import Hires
from service.core.model import ModelInfo
from service.core.sampler import Sampler, Schedule
from service.core.spec import GenerationSpec
from service.errors import SamplerUnsuitable, ValidationFailed
from service.http.schema.sampling import demand_sampler
from service.http.state import DISPATCHER
from service.models.defaults.known import UNKNOWN, Known
from tests.support.simulation.fake_engine import FAKE_MODEL, FakeEngine

EVERY: Mapping[Sampler, tuple[tuple[int, int], ...]] = dict.fromkeys(Sampler, ((1, 50),))
ZERO_SNR = replace(FAKE_MODEL, samplers={**EVERY, Sampler.HEUN: ((1, 20),)})
CLEAN = replace(FAKE_MODEL, samplers={**EVERY, Sampler.PNDM: (), Sampler.EULER_A: ()})
SHORT = replace(
    FAKE_MODEL, samplers={**dict.fromkeys(Sampler, ()), Sampler.DDIM: ((1, 4), (6, 10))}
)


def refused(model: ModelInfo | Known, sampler: str, steps: int) -> dict[str, list[str]]:
    """Return the fields that are told to be wrong; empty where none is."""
    try:
        demand_sampler(GenerationSpec(prompt="x", sampler=sampler, steps=steps), model)
    except ValidationFailed as error:
        return error.errors
    return {}


@pytest.mark.parametrize(
    ("model", "sampler", "steps"),
    [
        (UNKNOWN, "pndm", 50),
        (FAKE_MODEL, "pndm", 50),
        (ZERO_SNR, "heun", 20),
        (ZERO_SNR, "dpmpp_2m", 50),
        (CLEAN, "ddim", 50),
        (SHORT, "ddim", 6),
    ],
)
def test_pairs_that_work(model: ModelInfo | Known, sampler: str, steps: int) -> None:
    """What the model allows is not refused; nor is it before a model is loaded."""
    assert refused(model, sampler, steps) == {}


@pytest.mark.parametrize(
    ("model", "sampler", "steps", "field", "words"),
    [
        (
            ZERO_SNR,
            "heun",
            50,
            "steps",
            "must be 1-20 for heun with this model; 50 steps work with ddim, ddpm, deis,",
        ),
        (CLEAN, "pndm", 20, "sampler", "pndm cannot draw with this model; use ddim, ddpm, deis,"),
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


@pytest.mark.parametrize(
    ("sampler", "steps", "fault"),
    [
        ("heun", 20, {}),
        ("heun", 0, {}),
        ("heun", 21, {"hires": "steps: must be 1-20 for heun with this model; 21 steps work with"}),
    ],
)
def test_a_second_pass(sampler: str, steps: int, fault: dict[str, str]) -> None:
    """Its steps have to work as well as those of the first."""
    hires = Hires(scale=2, steps=steps)
    asked = GenerationSpec(prompt="x", sampler=sampler, steps=20, hires=hires)
    try:
        demand_sampler(asked, ZERO_SNR)
        found: dict[str, list[str]] = {}
    except ValidationFailed as error:
        found = error.errors

    assert found.keys() == fault.keys()
    assert all(words in found[name][0] for name, words in fault.items())


def test_a_schedule_that_does_not_exist_for_the_model() -> None:
    """The answer names those that do, of the ones that the sampler can follow."""
    without = tuple(each for each in Schedule if each != Schedule.ALIGN_YOUR_STEPS)
    asked = GenerationSpec(prompt="x", sampler="euler", schedule="align_your_steps")

    with pytest.raises(ValidationFailed) as raised:
        demand_sampler(asked, replace(FAKE_MODEL, schedules=without))

    (words,) = raised.value.errors["schedule"]
    assert words == (
        "align_your_steps does not exist for this model; use automatic, normal, karras, "
        "exponential, sgm_uniform, beta, simple"
    )


def test_a_sampler_that_cannot_draw_at_all_cannot_in_another_schedule() -> None:
    """What is known without steps is refused before the request waits."""
    asked = GenerationSpec(prompt="x", sampler="euler_a", schedule="karras")

    with pytest.raises(ValidationFailed) as raised:
        demand_sampler(asked, CLEAN)

    (words,) = raised.value.errors["sampler"]
    assert words.startswith("euler_a cannot draw with this model; karras works with deis, dpm2,")
    assert "ddim" not in words


@pytest.mark.parametrize("path", ["/generate", "/jobs"])
async def test_a_request_is_refused_before_it_waits(serve, path, tmp_path):
    """400 with the field, and nothing is queued or kept."""
    engine = FakeEngine(model=CLEAN)
    client = await serve(engine, data_dir=str(tmp_path / "data"))

    async with client.post(path, json={"prompt": "a boat", "sampler": "pndm"}) as answer:
        body = await answer.json(content_type=None)

    assert (answer.status, body["code"]) == (400, "validation_error")
    assert (
        "use ddim, ddpm, deis, dpm2, dpm2_a, dpmpp_2m, dpmpp_2m_sde, dpmpp_2s, dpmpp_3m_sde, "
        "dpmpp_sde, euler, heun, lcm, lms, tcd, unipc" in body["errors"]["sampler"][0]
    )
    assert (engine.batch, engine.steps) == ({}, 0)
    async with client.get("/jobs") as answer:
        assert (await answer.json())["jobs"] == []


async def test_a_request_that_came_before_the_model(serve):
    """The engine refuses what waited while nothing was known of the model: 400 again."""
    engine = FakeEngine(step_seconds=None, loads=False)
    client = await serve(engine)

    async def draw() -> tuple[int, str, dict[str, list[str]]]:
        async with client.post("/generate", json={"prompt": "a boat", "sampler": "pndm"}) as answer:
            body = await answer.json(content_type=None)
            return answer.status, body["code"], body["errors"]

    waiting = asyncio.create_task(draw())
    while client.app[DISPATCHER].depth != 1:
        async with client.get("/health/live"):
            pass
    engine.become_ready()
    await engine.jobs(1)
    detail = "The sampler pndm cannot take 20 steps with this model."
    engine.fail(SamplerUnsuitable.code, detail)

    assert await waiting == (400, "validation_error", {"sampler": [detail]})


async def test_a_schedule_that_the_files_of_a_model_rule_out_is_refused_before_it_is_loaded(serve):
    """Nobody published levels for the demo model; the engine need not be there to know."""
    client = await serve(FakeEngine(step_seconds=None, loads=False))
    body = {"prompt": "a boat", "schedule": "align_your_steps"}
    async with client.post("/generate", json=body) as answer:
        told = await answer.json(content_type=None)
    assert (answer.status, told["code"]) == (400, "validation_error")
    assert (
        "align_your_steps does not exist for this model; use automatic, normal"
        in (told["errors"]["schedule"][0])
    )
