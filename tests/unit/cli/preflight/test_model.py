"""Models that end a start before anything listens: one line, an exit code, no traceback."""

import json
import os
import shutil
from pathlib import Path

import pytest

from service.cli.exits import Exit
from tests.support.engine_extra import needs_engine
from tests.unit.cli.preflight.start import DEMO, giant, told

ROOTS = os.geteuid() == 0


@needs_engine
@pytest.mark.parametrize("command", [("serve",), ("generate", "a cat")])
def test_no_model(start, command):
    """What is neither here nor a hub id ends serving and generating alike."""
    code, line = told(start.run(*command, MODEL_ID="/nowhere/model"))
    assert code == Exit.MODEL_MISSING
    assert "There is no model '/nowhere/model'" in line


@needs_engine
def test_no_model_and_no_network_allowed(start):
    """HF_HUB_OFFLINE ends the start at once, instead of a service without a model."""
    code, line = told(start.run(MODEL_ID="org/name"))
    assert code == Exit.MODEL_MISSING
    assert (
        "org/name is not in models and HF_HUB_OFFLINE=1 forbids downloading it. Start once" in line
    )


@needs_engine
def test_a_damaged_model(start):
    """A model_index.json that cannot be read is found before the start."""
    folder = giant(start.folder / "damaged")
    (folder / "model_index.json").write_text("{")
    code, line = told(start.run("generate", "a cat", MODEL_ID=folder / "unet" / "x.bin"))
    assert code == Exit.MODEL_MISSING
    cached = start.folder / "models" / "models--org--name" / "snapshots" / "1234567"
    cached.parent.mkdir(parents=True)
    folder.rename(cached)
    code, line = told(start.run(MODEL_ID="org/name"))
    assert code == Exit.MODEL_DAMAGED
    assert "model_index.json is damaged" in line
    assert "Fetch it again: " in line
    assert "models pull org/name --model-cache-dir" in line


@needs_engine
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"size": 1536}', "size is 1536; the limit of requests to this model is 768"),
        ('{"steps": 4, "steps": 8}', "has steps more than once; keep one"),
    ],
)
def test_a_recipe_that_cannot_hold(start, content, words):
    """A start that ignores a part of it would draw other images than its author meant."""
    folder = giant(start.folder / "mine")
    (start.folder / "mine.recipe.json").write_text(content)
    code, line = told(start.run(MODEL_ID=folder))
    assert (code, words in line) == (Exit.MODEL_DAMAGED, True), line


def weights(path: Path, *names: str) -> Path:
    """Write a safetensors file of these tensors, of one number each."""
    rows = {
        name: {"dtype": "F16", "shape": [1, 1], "data_offsets": [2 * place, 2 * place + 2]}
        for place, name in enumerate(names)
    }
    head = json.dumps(rows).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(2 * len(names)))
    return path


@needs_engine
@pytest.mark.parametrize(
    "command", [("serve",), pytest.param(("generate", "a cat"), marks=pytest.mark.long)]
)
def test_what_is_no_model_of_ours(start, command):
    """Each is told what it is before anything listens, instead of a service without a model."""
    empty, flux = start.folder / "empty", start.folder / "flux"
    empty.mkdir()
    flux.mkdir()
    (flux / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    pickle, text = start.folder / "model.ckpt", start.folder / "notes.txt"
    pickle.touch()
    text.touch()
    page, renamed = start.folder / "page.safetensors", start.folder / "renamed.ckpt"
    page.write_text("<!doctype html>")
    weights(renamed, "x")
    lora = weights(start.folder / "lora.safetensors", "lora_unet_mid_block.lora_up.weight")
    unet = ("input_blocks.0.0.weight", "input_blocks.1.1.0.attn2.to_k.weight")
    encoder = ("embeddings.token_embedding.weight", "encoder.layers.0.mlp.fc1.bias")
    bare = weights(
        start.folder / "bare.safetensors",
        *(f"model.diffusion_model.{name}" for name in unet),
        "first_stage_model.x",
        *(f"cond_stage_model.transformer.text_model.{name}" for name in encoder),
    )
    said = {
        bare: "holds weights only, in a shape that Stable Diffusion 1.5, 2.1 and XL do not have",
        empty: "is no model in diffusers layout: it has no model_index.json",
        flux: "is a FluxPipeline. Supported are",
        pickle: "is a pickle file",
        text: "is neither a folder nor a .safetensors file",
        page: "is an HTML page. The link led to a page",
        renamed: "is a .safetensors file by its content, and has another ending. Rename it: mv",
        lora: "is no complete Stable Diffusion checkpoint",
    }
    for place, words in said.items():
        code, line = told(start.run(*command, MODEL_ID=place, DEVICE="cpu"))
        assert (code, words in line) == (Exit.MODEL_DAMAGED, True), line


@needs_engine
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
@pytest.mark.parametrize("what", ["model", "model/unet", "file.safetensors", "org/name"])
def test_a_model_of_another_users(start, what):
    """Whoever may not read it is told so, and is not told that it is damaged or absent."""
    shutil.copytree(DEMO, start.folder / "model")
    file = weights(start.folder / "file.safetensors", "x")
    cached = start.folder / "models" / "models--org--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").touch()
    theirs = (start.folder / "model", file, cached)
    for place in theirs:
        place.chmod(0)
        if ROOTS:
            os.chown(place, 1000, 1000)
    # Root may read everything, unless it gives that right away.
    start.prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if ROOTS else []
    name = what if what == "org/name" else start.folder / what
    try:
        code, line = told(start.run(MODEL_ID=name, DEVICE="cpu"))
    finally:
        for place in theirs:
            place.chmod(0o700)
    assert code == Exit.FOLDER_UNUSABLE
    assert "cannot be read (Permission denied)" in line
    assert f"readable for the service's user {os.geteuid()}:{os.getegid()}." in line


@needs_engine
def test_a_model_folder_that_cannot_be_written(start):
    """A model that has to be fetched needs a place."""
    blocked = start.folder / "file"
    blocked.touch()
    code, line = told(
        start.run(MODEL_ID="org/name", MODEL_CACHE_DIR=blocked / "models", HF_HUB_OFFLINE="0")
    )
    assert code == Exit.FOLDER_UNUSABLE
    assert f"MODEL_CACHE_DIR={blocked}/models: cannot be written (Not a directory)" in line
    assert f"the service's user {os.geteuid()}:{os.getegid()}," in line
