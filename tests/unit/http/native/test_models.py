"""GET /models, and the limits of requests by model."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from service.config.addresses import Listed
from service.config.credentials import Keys
from service.core.events import UnloadReason
from service.core.limits import SDXL
from service.core.recipe import Recipe
from service.http.state import DISPATCHER
from tests.support.simulation.fake_engine import FAKE_MODEL, FakeEngine
from tests.support.simulation.fake_models import FakeModel

XL_MODEL = replace(
    FAKE_MODEL, model_id="some/xl", version="xl-1", family="sdxl", sizes=SDXL, inpainting=True
)


async def read(client, path: str) -> Any:
    async with client.get(path) as answer:
        assert answer.status == 200
        return await answer.json()


async def sent(client, **fields: Any) -> tuple[int, Any]:
    async with client.post("/generate", json={"prompt": "a boat", "steps": 1, **fields}) as answer:
        return answer.status, await answer.json()


async def test_the_model_of_the_settings_is_listed(client):
    """With what a request to it may say, and what it means if it says nothing."""
    [model] = (await read(client, "/models"))["models"]
    limits, defaults = model.pop("limits"), model.pop("defaults")
    samplers = {each["name"]: each for each in model.pop("samplers")}
    assert model == {
        "id": "demo",
        "default": True,
        "state": "loaded",
        "engines": ["0"],
        "problem": None,
        "licence": "mit",
        "size_bytes": 23_447_022,
        "family": "sd",
        "inpainting": False,
        "recipe": None,
        "warnings": [],
        "vae": "",
        "version": "fake-1",
    }
    assert limits["width"] == {"minimum": 256, "maximum": 768, "multiple_of": 64}
    assert limits["steps"] == {"minimum": 1, "maximum": 50}
    assert {"width", "height", "steps", "sampler", "guidance_scale", "seed"} <= defaults.keys()
    assert "prompt" not in defaults
    assert samplers["dpmpp_2m"]["label"] == "DPM++ 2M"
    assert "karras" in samplers["dpmpp_2m"]["schedules"]
    assert samplers["ddim"]["schedules"] == ["automatic", "normal", "sgm_uniform"]
    health = await read(client, "/health")
    assert (health["limits"], health["defaults"]) == (limits, defaults)


async def test_the_schedules_of_a_model_are_those_of_its_files_before_it_is_loaded(serve):
    """What a request would be refused for is listed nowhere."""
    client = await serve(FakeEngine(loads=False), default_schedule="align_your_steps")
    [model] = (await read(client, "/models"))["models"]
    assert model["state"] == "loading"
    assert model["defaults"]["schedule"] == "automatic"
    listed = {name for each in model["samplers"] for name in each["schedules"]}
    assert "karras" in listed
    assert "align_your_steps" not in listed


async def test_a_loaded_model_corrects_what_was_thought_of_it(serve):
    """One that had to be fetched is known by its files only then."""
    engine = FakeEngine(model=XL_MODEL, loads=False)
    client = await serve(engine, model_id="some/model")
    [before] = (await read(client, "/models"))["models"]
    assert (before["id"], before["family"], before["version"]) == ("some/model", "sd", None)
    assert (before["state"], before["defaults"]["width"]) == ("loading", 512)
    assert not before["inpainting"]
    assert (await sent(client, width=1024))[0] == 400

    engine.become_ready()

    [after] = (await read(client, "/models"))["models"]
    assert (after["state"], after["family"], after["version"]) == ("loaded", "sdxl", "xl-1")
    assert after["inpainting"]
    status, answer = await sent(client)
    assert (status, answer["metadata"]["width"], answer["metadata"]["height"]) == (200, 1024, 1024)
    status, answer = await sent(client, width=256)
    assert status == 400
    assert answer["errors"] == {
        "width": ["must be a multiple of 64 between 512 and 1536, e.g. 1024"]
    }


async def test_jobs_have_the_limits_of_the_model_too(serve):
    """One schema stands behind both routes."""
    client = await serve(FakeEngine(model=XL_MODEL))
    body = {"prompt": "a boat", "width": 256}
    async with client.post("/jobs", json=body) as answer:
        assert answer.status == 400
        assert "between 512 and 1536" in (await answer.json())["errors"]["width"][0]


async def test_the_description_follows_the_model(serve):
    """What is described is what is checked."""
    engine = FakeEngine(model=XL_MODEL, loads=False)
    client = await serve(engine, model_id="some/model")

    async def width() -> tuple[int, int, int]:
        schemas = (await read(client, "/openapi.json"))["components"]["schemas"]
        found = [schemas[name]["properties"]["width"] for name in ("GenerationRequest", "JobOrder")]
        assert json.dumps(found[0]) == json.dumps(found[1])
        return found[0]["minimum"], found[0]["default"], found[0]["maximum"]

    assert await width() == (256, 512, 768)
    engine.become_ready()
    assert await width() == (512, 1024, 1536)


async def test_sizes_in_the_settings_beat_those_of_the_model(serve):
    """A user who sets one means it."""
    client = await serve(FakeEngine(model=XL_MODEL), default_size=512, max_size=1024)
    limits = client.app[DISPATCHER].limits()
    assert (limits.min_size, limits.default_size, limits.max_size) == (512, 512, 1024)
    assert (await sent(client))[1]["metadata"]["width"] == 512


RECIPE = Recipe(name="fast", source="name", guessed=True, steps=2, guidance_scale=0, sampler="lcm")


async def test_a_recipe_stands_for_what_a_request_leaves_out(serve):
    """The metadata name it, with a warning where it was guessed."""
    client = await serve(FakeEngine(model=replace(FAKE_MODEL, recipe=RECIPE)))
    [model] = (await read(client, "/models"))["models"]
    assert model["recipe"] == {
        "name": "fast",
        "source": "name",
        "guessed": True,
        "values": {"steps": 2, "guidance_scale": 0, "sampler": "lcm"},
    }
    async with client.post("/generate", json={"prompt": "a boat"}) as answer:
        metadata = (await answer.json())["metadata"]
    assert (metadata["steps"], metadata["guidance_scale"], metadata["sampler"]) == (2, 0, "lcm")
    assert metadata["recipe"] == "fast"
    assert ["guessed from the name" in warning for warning in metadata["warnings"]] == [True]


async def test_a_recipe_that_the_limits_cut_is_told(serve):
    """In the list of models, and with each image that has the smaller value."""
    cut = replace(RECIPE, guessed=False, steps=60, cut=(("steps", 50),))
    client = await serve(FakeEngine(model=replace(FAKE_MODEL, recipe=cut)))
    said = ["The recipe fast asks for steps 60, and the limits of requests allow 50."]
    [model] = (await read(client, "/models"))["models"]
    assert (model["warnings"], model["defaults"]["steps"]) == (said, 50)
    for fields, warnings in (({"steps": 50}, said), ({"steps": 3}, [])):
        _, answer = await sent(client, **fields)
        assert answer["metadata"]["warnings"] == warnings


async def test_a_request_beats_the_recipe(serve):
    """The metadata still say what the model is."""
    client = await serve(FakeEngine(model=replace(FAKE_MODEL, recipe=RECIPE)))
    _, answer = await sent(client, steps=3, guidance_scale=5, sampler="euler")
    metadata = answer["metadata"]
    assert (metadata["steps"], metadata["guidance_scale"], metadata["sampler"]) == (3, 5, "euler")
    assert metadata["recipe"] == "fast"


async def test_a_model_without_a_recipe_warns_of_nothing(client):
    """The metadata have both all the same."""
    _, answer = await sent(client)
    assert (answer["metadata"]["recipe"], answer["metadata"]["warnings"]) == ("", [])


async def test_with_keys_only_callers_with_one_see_the_models(serve):
    """As every other thing that a stranger need not know."""
    client = await serve(api_keys=Keys("alice:5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"))
    async with client.get("/models") as answer:
        assert answer.status == 401


async def test_a_request_for_a_model_that_is_not_listed_gets_the_list(client):
    """It is never drawn with another one; a name of the default model means it."""
    for path in ("/generate", "/jobs"):
        async with client.post(path, json={"prompt": "a boat", "model": "../demo"}) as answer:
            body = await answer.json()
        assert (answer.status, body["code"]) == (404, "model_not_found")
        assert "There are: demo " in body["detail"]
    for model in ("demo", "", None):
        status, answer = await sent(client, model=model)
        assert (status, answer["metadata"]["model"]) == (200, "fake")
    assert (await sent(client, model=5))[0] == 400


XL = "stabilityai/sdxl-turbo"
OTHER = FakeModel(info=replace(XL_MODEL, model_id=XL), load_seconds=None)


@pytest.fixture
async def several(serve, tmp_path):
    """Serve the demo and another model, which is loaded when the test says so."""
    engine = FakeEngine(models={XL: OTHER}, room=2)
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    return await serve(engine, models=Listed(f"{XL},{tmp_path}")), engine


async def test_all_models_are_listed_with_what_is_known_of_each(several):
    """Family, recipe, limits and defaults before it is loaded; its state follows the engine."""
    client, engine = several

    async def states() -> dict[str, str]:
        return {each["id"]: each["state"] for each in (await read(client, "/models"))["models"]}

    demo, xl, old = (await read(client, "/models"))["models"]
    assert [each["default"] for each in (demo, xl, old)] == [True, False, False]
    assert (xl["family"], xl["recipe"]["name"], xl["size_bytes"]) == ("sdxl", "turbo", None)
    assert xl["limits"]["width"]["maximum"] == 1536
    assert (xl["defaults"]["steps"], demo["defaults"]["steps"]) == (4, 20)
    assert "pickle" in old["problem"]
    assert (old["family"], old["recipe"], old["version"], old["size_bytes"]) == (None,) * 4
    assert old["limits"]["width"] == demo["limits"]["width"]
    assert await states() == {"demo": "loaded", XL: "on_hub", "old.ckpt": "failed"}
    sending = asyncio.create_task(sent(client, model=XL))
    while (await states())[XL] != "loading":
        pass
    engine.held.finish()
    status, answer = await sending
    assert (status, answer["metadata"]["model"], answer["metadata"]["width"]) == (200, XL, 512)
    assert (await states())[XL] == "loaded"
    for name in ("", XL):
        engine.held.unload(name, UnloadReason.IDLE)
    assert await states() == {"demo": "on_disk", XL: "on_disk", "old.ckpt": "failed"}
    _, xl, _ = (await read(client, "/models"))["models"]
    assert (xl["version"], xl["limits"]["width"]["maximum"]) == ("xl-1", 1536)
    async with client.get("/health/ready") as answer:
        assert answer.status == 200


async def test_a_model_that_could_not_be_loaded_is_listed_with_the_reason(serve):
    """Its files look well; it is tried again later."""
    engine = FakeEngine(models={XL: replace(OTHER, error="The UNet is damaged.")}, room=2)
    client = await serve(engine, models=Listed(XL))
    sending = asyncio.create_task(sent(client, model=XL))
    while not engine.held.wanted:
        await read(client, "/health")
    engine.held.finish()
    assert (await sending)[0] == 503
    _, xl = (await read(client, "/models"))["models"]
    assert (xl["state"], xl["problem"]) == ("failed", "The UNet is damaged.")
    assert (xl["family"], xl["recipe"]["name"]) == ("sdxl", "turbo")


async def test_requests_are_checked_by_the_model_that_they_name(several):
    """Each has its own limits, samplers and adapters."""
    client, _ = several
    status, answer = await sent(client, model=XL, width=256, height=256)
    assert (status, [*answer["errors"]]) == (400, ["width", "height"])
    assert (await sent(client, width=1024))[0] == 400
    status, answer = await sent(client, model="old.ckpt")
    assert (status, answer["code"]) == (503, "model_unavailable")
    status, answer = await sent(client, model=XL, adapters=[{"name": "none"}])
    assert (status, [*answer["errors"]]) == (400, ["adapters"])
