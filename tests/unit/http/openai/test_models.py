"""GET /v1/models."""

import pytest


async def test_models_are_listed_as_openai_lists_them(client):
    """The fields that the packages read."""
    async with client.get("/v1/models") as answer:
        listed = await answer.json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert model["created"] > 1_700_000_000
    del model["created"]
    assert model == {"id": "demo", "object": "model", "owned_by": "sd-api"}


async def test_head_is_answered(client):
    """As for everything that can be read."""
    async with client.head("/v1/models") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize("name", ["demo", "dall-e-3", "gpt-image-1"])
async def test_a_model_is_found_by_the_names_that_requests_use(client, name):
    """Its own, and those of OpenAI's models."""
    async with client.get(f"/v1/models/{name}") as answer:
        assert (answer.status, (await answer.json())["id"]) == (200, "demo")


@pytest.mark.parametrize("name", ["nobody", "organisation/nobody", "organisation%2Fnobody"])
async def test_an_unknown_model_is_not_found(client, name):
    """Names may have slashes, which the packages escape and people do not."""
    async with client.get(f"/v1/models/{name}") as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (404, "model_not_found")
        assert "nobody" in error["message"]


async def test_models_with_an_organisation_belong_to_it(serve, tmp_path):
    """As the hub says it."""
    client = await serve(models="", model_id="organisation/name", model_cache_dir=tmp_path)
    async with client.get("/v1/models/organisation/name") as answer:
        found = await answer.json()
    assert (found["id"], found["owned_by"], found["created"]) == (
        "organisation/name",
        "organisation",
        0,
    )
