"""Several engines, as ``GET /health`` and ``GET /models`` show them."""

from dataclasses import replace
from typing import Any

from service.app import create_app
from service.config.addresses import Listed
from service.config.credentials import Keys
from service.config.table import Config
from service.http.state import DISPATCHER
from tests.support.jobs.scripted_engine import job, submitted
from tests.support.simulation.fake_engine import FAKE_MODEL, FakeEngine
from tests.support.simulation.fake_models import FakeModel

SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of a test
ON_GPU = replace(FAKE_MODEL, gpu=True, device="Some GPU", gpu_uuid="GPU-1")
OTHER = FakeModel(info=replace(FAKE_MODEL, model_id="some/xl", version="xl-1"))


async def read(client, path: str, **more: Any) -> Any:
    async with client.get(path, **more) as answer:
        assert answer.status == 200
        return await answer.json()


async def test_each_engine_is_listed(aiohttp_client):
    """By its name in the metrics, with its state, its work, its device and its models."""
    engines = [FakeEngine(model=ON_GPU), FakeEngine(loads=False)]
    client = await aiohttp_client(create_app(Config(data_dir=""), engines))
    engines[1].become_ready()
    engines[1].crash()
    body = await read(client, "/health")
    first, second = body["engines"]
    assert (body["status"], body["engine"]["state"], body["engine"]["restarts"]) == (
        "healthy",
        "ready",
        1,
    )
    assert first == {
        "name": "0",
        "state": "ready",
        "restarts": 0,
        "circuit": "closed",
        "silent_seconds": 0.0,
        "leaving": False,
        "running": 0,
        "node": "",
        "device": "Some GPU",
        "gpu": "GPU-1",
        "models": ["demo"],
    }
    assert (second["name"], second["state"], second["restarts"]) == ("1", "restarting", 1)
    assert (second["device"], second["models"]) == ("cpu", [])


async def test_an_engine_of_a_cluster_names_its_machine(aiohttp_client):
    """Its address is what an operator needs to look there; who has no key does not see it."""
    engine = FakeEngine()
    engine.node = "10.0.0.7"
    config = Config(data_dir="", api_keys=Keys(f"anna:{SECRET}"))
    client = await aiohttp_client(create_app(config, [engine]))
    known = await read(client, "/health", headers={"Authorization": f"Bearer {SECRET}"})
    assert [each["node"] for each in known["engines"]] == ["10.0.0.7"]
    assert "node" not in (await read(client, "/health"))["engines"][0]


async def test_an_engine_that_leaves_says_so(aiohttp_client):
    """While it ends its jobs; then it is not listed any more."""
    engines = [FakeEngine(step_seconds=None) for _ in range(2)]
    config = Config(data_dir="", max_concurrent_requests=1)
    client = await aiohttp_client(create_app(config, engines))
    dispatcher = client.app[DISPATCHER]
    await submitted(dispatcher, job(steps=1), job(steps=1))
    dispatcher.leave(engines[1])
    found = [await read(client, "/health")]
    await engines[1].step()
    found.append(await read(client, "/health"))
    shown = [
        [(each["name"], each["leaving"], each["running"]) for each in body["engines"]]
        for body in found
    ]
    assert shown == [[("0", False, 1), ("1", True, 1)], [("0", False, 1)]]


async def test_who_has_no_key_sees_the_states_alone(aiohttp_client):
    """Neither what is loaded nor on which device, nor why it failed."""
    engines = [FakeEngine(model=ON_GPU), FakeEngine(loads=False)]
    config = Config(data_dir="", api_keys=Keys(f"anna:{SECRET}"))
    client = await aiohttp_client(create_app(config, engines))
    engines[1].fail_to_load("The folder has no UNet.")
    first, second = (await read(client, "/health"))["engines"]
    assert first.keys() == {
        *("name", "state", "restarts", "circuit", "silent_seconds", "leaving", "running"),
    }
    assert second["state"] == "failed"
    assert "failure" not in second
    known = await read(client, "/health", headers={"Authorization": f"Bearer {SECRET}"})
    assert known["engines"][0]["models"] == ["demo"]
    assert known["engines"][1]["failure"] == "The folder has no UNet."


async def test_models_say_which_engines_have_them(aiohttp_client):
    """A model is loaded when one engine has it; its version is known from there."""
    engines = [FakeEngine(models={"some/xl": OTHER}) for _ in range(2)]
    config = Config(data_dir="", models=Listed("some/xl"))
    client = await aiohttp_client(create_app(config, engines))
    found = [await read(client, "/models")]
    engines[1].load_model("some/xl")
    found.append(await read(client, "/models"))
    shown = [
        [(each["state"], each["engines"], each["version"]) for each in body["models"]]
        for body in found
    ]
    assert shown[0] == [("loaded", ["0", "1"], "fake-1"), ("on_hub", [], None)]
    assert shown[1][1] == ("loaded", ["1"], "xl-1")
    assert ("0" in shown[1][0][1], shown[1][0][0]) == (True, "loaded")
