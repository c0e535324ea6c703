"""Models by their titles, and what is different for the family XL."""

from dataclasses import replace
from typing import Any

from service.config.addresses import Listed
from service.core.limits import SDXL
from service.http.state import HASHES
from tests.support.simulation.fake_engine import FAKE_MODEL, FakeEngine
from tests.support.simulation.fake_models import FakeModel
from tests.unit.http.sdapi.asking import ALICE, BOB, KEYS, ask, basic, draw, info

XL = "some/xl"
XL_MODEL = replace(FAKE_MODEL, model_id=XL, version="xl-1", family="sdxl", sizes=SDXL)


def engine() -> FakeEngine:
    """Return an engine that can load a second model."""
    return FakeEngine(models={XL: FakeModel(info=XL_MODEL)}, room=2)


async def two_models(serve, **settings):
    """Start a service with the demo and a model of the family XL."""
    return await serve(engine(), models=Listed(XL), **settings)


async def test_nobody_switches_the_model_of_another(serve):
    """A caller's model is an option of its own; the others draw with the default one."""
    client = await two_models(serve, api_keys=KEYS)
    alice, bob = basic(ALICE), basic(BOB)
    titles = [each["title"] for each in await ask(client, "GET", "sd-models", headers=alice)]
    assert titles[1] == XL
    await ask(client, "POST", "options", json={"sd_model_checkpoint": XL}, headers=alice)
    shown = [await ask(client, "GET", "options", headers=each) for each in (alice, bob)]
    assert shown[0]["sd_model_checkpoint"] == XL
    # Its title has a hash as soon as that is known.
    assert shown[1]["sd_model_checkpoint"].startswith(titles[0].partition(" [")[0])
    made = [info(await draw(client, headers=each, width=512, height=512)) for each in (alice, bob)]
    assert [each["sd_model_name"] for each in made] == [XL, "fake"]
    once = {"sd_model_checkpoint": titles[0]}
    found = info(await draw(client, headers=alice, override_settings=once))
    assert found["sd_model_name"] == "fake"


async def test_the_field_of_other_servers_names_a_model_too(serve):
    """An option of the same request goes before it."""
    client = await two_models(serve)
    sent: dict[str, Any] = {"model": XL, "width": 512, "height": 512}
    assert info(await draw(client, **sent))["sd_model_name"] == XL
    overrides = {"sd_model_checkpoint": "demo"}
    found = info(await draw(client, **sent, override_settings=overrides))
    assert found["sd_model_name"] == "fake"


async def test_models_of_the_family_xl_skip_no_layers(serve):
    """As in AUTOMATIC1111; what was asked for is named."""
    client = await two_models(serve)
    sent: dict[str, Any] = {"model": XL, "width": 512, "height": 512}
    found = info(await draw(client, **sent, clip_skip=2))
    assert (found["clip_skip"], found["warnings"]) == (
        1,
        ["CLIP_stop_at_last_layers: models of the family XL do not use it."],
    )
    for layers in (0, 1, 1.0, "1"):
        assert info(await draw(client, **sent, clip_skip=layers))["warnings"] == []


async def test_a_model_is_known_by_its_hash(client, monkeypatch):
    """Once it is known: alone, or in the title that was shown."""
    known = "0cf9180a76" + "0" * 54
    monkeypatch.setattr(client.app[HASHES], "known", lambda _key: known)
    (model,) = await ask(client, "GET", "sd-models")
    assert model["title"] == "demo [0cf9180a76]"
    assert (model["hash"], model["sha256"]) == ("0cf9180a76", known)
    for name in ("0cf9180a76", "0CF9180A76", known, model["title"], "demo [abcd1234]"):
        await draw(client, override_settings={"sd_model_checkpoint": name})
    for name in ("0cf918", "1cf9180a76"):
        await draw(client, 404, override_settings={"sd_model_checkpoint": name})
