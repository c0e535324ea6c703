"""GET /models/adapters, and requests that name adapters."""

from pathlib import Path

import pytest

from tests.support.models.adapter_headers import written

BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 2, "seed": 1}


async def test_the_list_of_adapters(serve, tmp_path: Path) -> None:
    """Everything that a client needs to choose one; what cannot be used says why."""
    written(tmp_path / "ink.safetensors", metadata={"modelspec.trigger_phrase": "in ink"})
    (tmp_path / "old.pt").write_bytes(b"PK\3\4data.pkl")
    client = await serve(lora_dir=str(tmp_path))
    async with client.get("/models/adapters") as answer:
        assert answer.status == 200
        found = {each["name"]: each for each in (await answer.json())["adapters"]}
    assert set(found) == {"ink", "old"}
    ink, old = found["ink"], found["old"]
    assert (ink["name"], ink["family"], ink["trigger_words"]) == ("ink", "sd1", ["in ink"])
    assert ink["size_bytes"] == (tmp_path / "ink.safetensors").stat().st_size
    assert (len(ink["sha256"]), len(ink["short_hash"]), ink["problem"]) == (64, 12, None)
    assert (old["name"], old["sha256"]) == ("old", None)
    assert "pickle" in old["problem"]


async def test_adapters_reach_the_engine_and_the_metadata(serve, tmp_path: Path) -> None:
    """The answer says what was used, weights filled in."""
    written(tmp_path / "models" / "loras" / "ink.safetensors")
    client = await serve(model_cache_dir=tmp_path / "models")
    body = {**BODY, "adapters": [{"name": "ink", "weight": 0.5}]}
    async with client.post("/generate", json=body) as answer:
        assert answer.status == 200
        metadata = (await answer.json())["metadata"]
    assert metadata["adapters"] == [{"name": "ink", "weight": 0.5, "text_weight": 0.5}]


async def test_an_unknown_adapter_is_refused(serve, tmp_path: Path) -> None:
    """The field and the names that there are come back at once."""
    written(tmp_path / "ink.safetensors")
    client = await serve(lora_dir=str(tmp_path))
    async with client.post("/generate", json={**BODY, "adapters": [{"name": "no"}]}) as answer:
        assert answer.status == 400
        problem = await answer.json()
    assert problem["errors"] == {"adapters": ["There is no adapter 'no'. There are: ink."]}


async def test_a_stored_job_keeps_its_adapters(serve, tmp_path: Path) -> None:
    """A job and its row say the same."""
    written(tmp_path / "ink.safetensors")
    client = await serve(lora_dir=str(tmp_path), data_dir=str(tmp_path / "data"))
    body = {**BODY, "adapters": [{"name": "ink"}]}
    headers = {"Idempotency-Key": "one"}
    async with client.post("/generate", json=body, headers=headers) as answer:
        first = await answer.json()
    async with client.post("/generate", json=body, headers=headers) as answer:
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert (await answer.json())["metadata"] == first["metadata"]
    other = {**BODY, "adapters": [{"name": "ink", "weight": 0.5}]}
    async with client.post("/generate", json=other, headers=headers) as answer:
        assert answer.status == 409


async def test_embeddings_are_listed(serve, tmp_path: Path) -> None:
    """With what a prompt calls them, wherever in the folder they lie."""
    written(tmp_path / "ink.safetensors")
    written(tmp_path / "toy.safetensors", {"emb_params": (2, 768)})
    written(tmp_path / "embeddings" / "bad.safetensors", {"<bad>": (768,)})
    client = await serve(lora_dir=str(tmp_path))
    async with client.get("/models/adapters") as answer:
        found = {each["name"]: each for each in (await answer.json())["adapters"]}
    kinds = {name: (each["kind"], each["trigger_words"]) for name, each in found.items()}
    assert kinds == {
        "ink": ("lora", []),
        "toy": ("embedding", ["<toy>"]),
        "bad": ("embedding", ["<bad>"]),
    }
    assert found["toy"]["short_hash"] == found["toy"]["sha256"][:12]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"prompt": "a <xl> cat"}, "prompt", "xl is made for sdxl, and the model is of the family"),
        ({"negative_prompt": "<xl>"}, "negative_prompt", "xl is made for sdxl"),
        ({"prompt": "an xl cat", "prompt_syntax": "a1111"}, "prompt", "xl is made for sdxl"),
        ({"prompt": "<old>"}, "prompt", "old.pt is a pickle"),
        ({"adapters": [{"name": "toy"}]}, "adapters", "toy is an embedding: write <toy> into the"),
    ],
)
async def test_an_embedding_that_cannot_be_used(serve, tmp_path: Path, fields, field, words):
    """One line says why; the same words in plain text are text."""
    written(tmp_path / "toy.safetensors", {"emb_params": (2, 768)})
    written(tmp_path / "xl.safetensors", {"clip_l": (2, 768), "clip_g": (2, 1280)})
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "old.pt").write_bytes(b"PK\3\4data.pkl")
    client = await serve(lora_dir=str(tmp_path))
    async with client.post("/generate", json={**BODY, **fields}) as answer:
        assert answer.status == 400
        (said,) = (await answer.json())["errors"][field]
    assert words in said
    for text in ("an xl cat, old", "<nothing> <", "a <toy>"):
        async with client.post("/generate", json={**BODY, "prompt": text}) as answer:
            assert answer.status == 200
