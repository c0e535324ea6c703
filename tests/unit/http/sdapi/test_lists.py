"""What clients ask for before they draw."""

import pytest

from service.config.credentials import Keys
from tests.unit.http.sdapi.asking import ALICE, KEYS, ask, basic, draw

POSTS = (
    *("refresh-checkpoints", "refresh-loras", "refresh-embeddings", "refresh-vae"),
    *("unload-checkpoint", "reload-checkpoint"),
)
EMPTY = ("sd-vae", "hypernetworks", "face-restorers", "prompt-styles")


@pytest.mark.parametrize("path", EMPTY)
async def test_what_is_not_here_is_an_empty_list(client, path):
    """Clients parse it at the start."""
    assert await ask(client, "GET", path) == []


async def test_models_are_listed_with_what_clients_show(client):
    """The title is what they send back."""
    (model,) = await ask(client, "GET", "sd-models")
    assert model.keys() == {"title", "model_name", "hash", "sha256", "filename", "config"}
    assert model["title"].split(" [")[0] == model["model_name"] == model["filename"] == "demo"
    options = {"sd_model_checkpoint": model["title"]}
    assert await ask(client, "POST", "options", json=options) is None


async def test_a_title_with_a_hash_is_the_same_model(client):
    """The hash is in it once it is known."""
    for title in ("demo [0cf9180a76]", "demo", " demo "):
        await draw(client, override_settings={"sd_model_checkpoint": title})
        await draw(client, model=title)


async def test_the_first_upscaler_is_none(client):
    """Clients skip it by its place; the others enlarge images, and between two passes."""
    upscalers = await ask(client, "GET", "upscalers")
    assert [each["name"] for each in upscalers] == ["None", "Lanczos"]
    modes = await ask(client, "GET", "latent-upscale-modes")
    assert [each["name"] for each in modes] == ["Latent"]


async def test_samplers_and_schedulers_are_listed(client):
    """With the names that a request takes."""
    samplers = {each["name"]: each for each in await ask(client, "GET", "samplers")}
    assert samplers["DPM++ 2M"]["options"] == {"scheduler": "karras"}
    assert "k_euler_a" in samplers["Euler a"]["aliases"]
    schedulers = await ask(client, "GET", "schedulers")
    assert schedulers[0]["name"] == "automatic"
    assert {"name", "label", "aliases", "default_rho", "need_inner_model"} == schedulers[0].keys()


async def test_adapters_are_listed_by_kind(client):
    """Without the folders of the machine."""
    (lora,) = await ask(client, "GET", "loras")
    assert (lora["name"], lora["alias"], lora["path"]) == ("ink", "ink", "ink.safetensors")
    assert await ask(client, "GET", "embeddings") == {"loaded": {}, "skipped": {}}


async def test_scripts_flags_and_memory_are_objects(client):
    """Some clients need no more than that they are there."""
    assert await ask(client, "GET", "scripts") == {"txt2img": [], "img2img": []}
    assert await ask(client, "GET", "cmd-flags") == {}
    memory = await ask(client, "GET", "memory")
    assert 0 < memory["ram"]["used"] < memory["ram"]["total"]


@pytest.mark.parametrize("path", POSTS)
async def test_what_there_is_nothing_to_do_for_is_answered(client, path):
    """With null, as AUTOMATIC1111 does."""
    assert await ask(client, "POST", path) is None


async def test_paths_outside_are_answered_too(client):
    """Plugins ask them whether a server is there."""
    async with client.get("/queue/status") as answer:
        found = await answer.json()
        assert (answer.status, found["queue_size"]) == (200, 0)
    for path in ("/config", "/internal/ping"):
        async with client.get(path) as answer:
            assert answer.status == 200
            await answer.json()
    async with client.head("/", allow_redirects=False) as answer:
        assert answer.status < 400


@pytest.mark.parametrize("path", ["interrogate", "nothing"])
async def test_what_is_not_there_is_404_in_the_words_of_the_product(client, path):
    """Clients take it for a server without that part."""
    assert (await ask(client, "POST", path, 404))["detail"] == "Not Found"


async def test_lists_need_the_key(serve):
    """All but the ping, in the form that clients know."""
    client = await serve(api_keys=KEYS)
    for path in ("sd-models", "options", "progress", "cmd-flags"):
        async with client.get(f"/sdapi/v1/{path}") as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
            assert (await answer.json())["detail"] == "Incorrect username or password"
        await ask(client, "GET", path, headers=basic(ALICE))
    async with client.get("/internal/ping") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "header", ["Basic ", "Basic", "Basic Og==", "Basic dXNlcjo=", "Basic !", "Basic /w=="]
)
async def test_empty_basic_credentials_are_no_guess(serve, header):
    """Clients send them with every request; they never lock an address out."""
    client = await serve(api_keys=KEYS, auth_failures_per_minute=2)
    for _ in range(5):
        await ask(client, "GET", "options", 401, headers={"Authorization": header})
    await ask(client, "GET", "options", headers=basic(ALICE))
    open_to_all = await serve(api_keys=Keys())
    await ask(open_to_all, "GET", "options", headers={"Authorization": header})


async def test_wrong_passwords_are_guesses(serve):
    """As wrong keys are; a key is no user name, and Basic opens no other API."""
    client = await serve(api_keys=KEYS, auth_failures_per_minute=2)
    async with client.get("/jobs", headers=basic(ALICE)) as answer:
        assert answer.status == 401
    for status in (401, 401, 429):
        await ask(client, "GET", "options", status, headers=basic("x" * 32, ALICE))
