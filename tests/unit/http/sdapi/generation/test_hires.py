"""The second pass of ``txt2img``."""

import asyncio
from typing import Any

import pytest

from service.core.inputs import Hires
from tests.support.images.files import opened
from tests.support.simulation.fake_engine import FakeEngine
from tests.unit.http.sdapi.asking import draw, info


async def drawn_as(serve, **fields: Any) -> Any:
    """Return what the engine is asked to draw."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asking = asyncio.create_task(draw(client, **fields))
    (job_id,) = await engine.jobs(1)
    request = engine.batch[job_id]
    await engine.step(request.total_steps)
    await asking
    return request


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Hires(scale=2, strength=0.75, steps=11, resize="latent")),
        ({"hr_scale": "1.5", "denoising_strength": 0.5}, Hires(scale=1.5, steps=16, strength=0.5)),
        ({"hr_second_pass_steps": 7.0}, Hires(scale=2, steps=10, strength=0.75)),
        ({"hr_second_pass_steps": 40}, Hires(scale=2, steps=50, strength=0.75)),
        ({"hr_upscaler": "Latent"}, Hires(scale=2, steps=11, strength=0.75)),
        ({"hr_upscaler": "Lanczos"}, Hires(scale=2, steps=11, strength=0.75, resize="lanczos")),
        ({"hr_upscaler": "None"}, Hires(scale=2, steps=11, strength=0.75, resize="lanczos")),
        (
            {"hr_resize_x": 384, "hr_resize_y": 320},
            Hires(width=384, height=320, steps=11, strength=0.75),
        ),
        ({"hr_resize_x": 384}, Hires(width=384, height=384, steps=11, strength=0.75)),
        ({"hr_resize_y": 384, "width": 512}, Hires(width=768, height=384, steps=11, strength=0.75)),
        (
            {"hr_resize_x": 381, "hr_resize_y": 321},
            Hires(width=384, height=320, steps=11, strength=0.75),
        ),
    ],
)
async def test_its_fields_are_those_of_the_native_api(serve, fields, expected):
    """What is left out is as in AUTOMATIC1111, and its steps are those that are done.

    One side in pixels follows the other.
    """
    request = await drawn_as(serve, steps=8, enable_hr=True, **fields)
    assert request.hires == expected


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.55, 0.7, 0.75, 0.9, 1])
@pytest.mark.parametrize("steps", [1, 7, 13])
async def test_its_steps_are_done(serve, steps, strength):
    """Whatever the strength is, as in AUTOMATIC1111."""
    fields = {"hr_second_pass_steps": steps, "denoising_strength": strength}
    assert (await drawn_as(serve, enable_hr=True, **fields)).hires_steps == steps


async def test_the_image_has_the_size_of_the_second_pass(client):
    """And says what it was made from."""
    answer = await draw(client, enable_hr=True, hr_scale=1.5, denoising_strength=0.5)
    assert opened(answer["images"][0]).size == (384, 384)
    found = info(answer)
    assert (found["width"], found["denoising_strength"], found["warnings"]) == (256, 0.5, [])
    assert found["extra_generation_params"]["Hires upscale"] == 1.5
    assert found["extra_generation_params"]["Hires upscaler"] == "Latent"
    assert opened(answer["images"][0]).info["parameters"] == found["infotexts"][0]


@pytest.mark.parametrize(
    "fields",
    [
        {"enable_hr": False, "hr_scale": 0, "hr_upscaler": "LDSR", "denoising_strength": 0.7},
        {"enable_hr": True, "hr_scale": 1},
        {"enable_hr": True, "hr_scale": "1.0", "hr_upscaler": "R-ESRGAN 4x+"},
    ],
)
async def test_without_a_larger_size_there_is_none(client, fields):
    """Nor a warning; clients send these fields always."""
    answer = await draw(client, **fields)
    assert opened(answer["images"][0]).size == (256, 256)
    assert (info(answer)["denoising_strength"], info(answer)["warnings"]) == (None, [])


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        (
            {"hr_upscaler": "Latent (bicubic)"},
            "hr_upscaler: there is no 'Latent (bicubic)'; Latent is used.",
        ),
        (
            {"hr_upscaler": "R-ESRGAN 4x+"},
            "hr_upscaler: there is no 'R-ESRGAN 4x+'; Lanczos is used.",
        ),
        ({"hr_prompt": "a dog"}, "hr_prompt: this service does not do it."),
        ({"hr_sampler_name": "Euler"}, "hr_sampler_name: this service does not do it."),
    ],
)
async def test_what_is_not_done_is_named(client, fields, warning):
    """And the nearest thing is done."""
    assert info(await draw(client, enable_hr=True, **fields))["warnings"] == [warning]


async def test_what_changes_nothing_is_not_named(client):
    """A second pass of the same model, sampler and prompt."""
    same: dict[str, Any] = {
        "hr_checkpoint_name": "Use same checkpoint",
        "hr_sampler_name": None,
        "hr_scheduler": "Use same scheduler",
        "hr_prompt": "a cat",
        "hr_negative_prompt": "",
    }
    assert info(await draw(client, enable_hr=True, **same))["warnings"] == []


async def test_a_size_that_is_too_large_becomes_the_largest(client):
    """In the same shape, which the answer says."""
    answer = await draw(client, enable_hr=True, width=768, height=512, hr_scale=3)
    assert opened(answer["images"][0]).size == (1536, 1024)
    (warning,) = info(answer)["warnings"]
    assert warning.startswith("hr_scale: 2304x1536 is not possible")


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"hr_scale": 9}, "hr_scale: must be a number between"),
        ({"denoising_strength": 1.5}, "denoising_strength: must be a number between"),
        ({"hr_resize_x": 9000, "hr_resize_y": 9000}, "hr_resize_x: must be a"),
    ],
)
async def test_what_cannot_be_is_refused_in_the_words_of_the_client(serve, fields, detail):
    """Where the settings say so, sizes too."""
    client = await serve(compat_sizes="refuse")
    answer = await draw(client, 400, enable_hr=True, **fields)
    assert answer["detail"].startswith(detail)


async def test_variations_have_seeds_as_there(client):
    """All images have one seed, and each the next subseed."""
    found = info(await draw(client, subseed=40, subseed_strength=0.25, batch_size=2))
    assert (found["all_seeds"], found["all_subseeds"]) == ([7, 7], [40, 41])
    assert (found["subseed"], found["subseed_strength"]) == (40, 0.25)


async def test_a_subseed_without_strength_changes_nothing(client):
    """Clients send one always."""
    one = opened((await draw(client, subseed=40, subseed_strength=0))["images"][0])
    other = opened((await draw(client))["images"][0])
    assert one.tobytes() == other.tobytes()
    assert "Variation" not in one.info["parameters"]


async def test_a_random_subseed_is_named(client):
    """As the seed is."""
    found = info(await draw(client, subseed=-1, subseed_strength=0.25))
    assert 0 <= found["subseed"] < 2**32
