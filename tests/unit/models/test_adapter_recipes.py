"""Recipes of adapters: what a LoRA for few steps wants where a request says nothing."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from service.config.limits import limits_of
from service.config.table import Config
from service.core.model import facts_of
from service.core.spec import GenerationSpec
from service.http.schema.generation import read_request
from service.models.defaults.adapters import facts


def read(*names: str, limits: Config | None = None, **fields: Any) -> GenerationSpec:
    adapters = [{"name": name} for name in names]
    body = {"prompt": "a boat", "adapters": adapters, **fields}
    return read_request(body, limits_of(limits or Config()))


def values(request: GenerationSpec) -> tuple[int, float, str]:
    return request.steps, request.guidance_scale, request.sampler


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lcm-lora-sdv1-5", (4, 1.0, "lcm")),
        ("sdxl_lightning_8step_lora", (8, 0.0, "euler")),
        ("Hyper-SD15-4steps-lora", (4, 0.0, "ddim")),
        ("dmd2_sdxl_4step_lora", (4, 0.0, "lcm")),
        ("ink", (20, 7.5, "dpmpp_2m")),
    ],
)
def test_an_adapter_for_few_steps_brings_its_own_defaults(name, expected):
    """With those of the model its images would be burnt; the size stays the model's."""
    request = read("ink-2", name)
    assert values(request) == expected
    assert (request.width, request.height) == (512, 512)


def test_a_request_beats_the_adapter():
    """Each field by itself."""
    assert values(read("lcm-lora", steps=6)) == (6, 1.0, "lcm")
    assert values(read("lcm-lora", guidance_scale=2, sampler="euler")) == (4, 2.0, "euler")
    assert values(read("lcm-lora", steps=None)) == (4, 1.0, "lcm")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("euler", "sgm_uniform", 0)),
        ({"sampler": "dpmpp_2m"}, ("dpmpp_2m", "sgm_uniform", 0)),
        ({"sampler": "lcm"}, ("lcm", "automatic", 0)),
        ({"schedule": "karras"}, ("euler", "karras", 0)),
    ],
)
def test_the_schedule_of_an_adapter_is_for_samplers_that_follow_it(fields, expected):
    """Its publisher names both; whoever takes another sampler is not refused for it."""
    request = read("sdxl_lightning_4step", **fields)
    assert (request.sampler, request.schedule, request.eta) == expected


def test_an_adapter_brings_its_eta():
    """TCD's sampler takes a share of new noise in each step."""
    request = read("TCD-SDXL-LoRA")
    assert (request.sampler, request.schedule, request.eta) == ("tcd", "automatic", 0.3)
    assert read("TCD-SDXL-LoRA", sampler="euler").eta == 0


def test_a_prompt_that_names_an_adapter_brings_its_recipe():
    """As the field does, in the syntax in which tags mean something."""
    body = {"prompt": "a boat <lora:sdxl_lightning_2step:0.9>"}
    tagged = {**body, "prompt_syntax": "a1111"}
    limits = limits_of(Config())
    assert values(read_request(tagged, limits)) == (2, 0.0, "euler")
    assert values(read_request({**tagged, "steps": 6}, limits)) == (6, 0.0, "euler")
    assert values(read_request(body, limits)) == (20, 7.5, "dpmpp_2m")


def test_the_limit_of_steps_holds():
    """An adapter asks for no more than a request may; log and metadata say what is missing."""
    with capture_logs() as lines:
        request = read("lightning_8step", limits=Config(max_steps=6))
    assert request.steps == 6
    assert [line["event"] for line in lines] == ["adapter_recipe_guessed", "adapter_recipe_cut"]
    assert (lines[-1]["wanted"], lines[-1]["held"]) == (8, 6)
    assert "asks for 8 steps, and MAX_STEPS allows 6" in warnings(request, 6)[-1]
    fewer = read("lightning_8step", limits=Config(max_steps=6), steps=2)
    assert ["guessed" in text for text in warnings(fewer, 6)] == [True]


def warnings(request: GenerationSpec, max_steps: int = 50) -> list[str]:
    return [*facts(request, facts_of(), max_steps)["warnings"]]


def test_the_metadata_name_the_recipe_and_warn():
    """A name is a guess."""
    found = facts(read("ink", "lcm-lora"), facts_of(vae="other"), 50)
    assert (found["recipe"], found["vae"]) == ("lcm-lora", "other")
    assert ["name of the adapter lcm-lora" in text for text in found["warnings"]] == [True]
    assert facts(read("ink"), facts_of(), 50) == facts_of()
