"""The bundled model, as a user of diffusers meets it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTokenizer

from scripts.demo_model.train import unpack
from scripts.demo_model.unet import averaged_unet

FOLDER = Path(__file__).parents[3] / "service" / "demo"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def pipe():
    loaded = StableDiffusionPipeline.from_pretrained(FOLDER)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_folder_is_small_and_safe():
    """All files together stay within 24 MB, and weights are safetensors only."""
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 24_000_000
    assert {file.suffix for file in files} <= {".json", ".txt", ".md", ".safetensors"}


@pytest.mark.parametrize("size", [(256, 256), (128, 192)])
def test_makes_an_image(pipe, size):
    """The pipeline loads without custom code, and images are neither empty nor broken."""
    generator = torch.Generator().manual_seed(1)
    width, height = size
    out = pipe(
        "A beautiful sunset over mountains",
        width=width,
        height=height,
        num_inference_steps=4,
        generator=generator,
        output_type="np",
    )
    image = out.images[0]
    assert image.shape == (height, width, 3)
    assert np.isfinite(image).all()
    assert image.std() > 0.05


def test_prompt_decides_the_light(pipe):
    """A day is brighter than a night."""
    out = pipe(
        ["hills on a sunny day", "hills at night"],
        width=128,
        height=128,
        num_inference_steps=5,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    )
    day, night = out.images
    assert day.mean() > night.mean() + 0.15


@pytest.mark.parametrize("text", ["", "Zxqwvut 日本 🚀 café", "word " * 200])
def test_tokenizer_takes_any_text(text):
    """Unknown words, other scripts and long texts come out as 77 known tokens."""
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")
    ids = tokenizer(text, padding="max_length", truncation=True, max_length=77).input_ids
    assert len(ids) == 77
    assert max(ids) < len(tokenizer)
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id in ids


def test_training_can_go_on_from_the_shipped_model(tmp_path):
    """An exported model becomes a work folder with the same UNet in it."""
    unpack(FOLDER, tmp_path, spent=60.0)
    unet, counters = averaged_unet(tmp_path)
    shipped = UNet2DConditionModel.from_pretrained(FOLDER / "unet").float().state_dict()
    assert all(torch.equal(value, shipped[name]) for name, value in unet.state_dict().items())
    assert counters["spent"] == 60.0
    assert (tmp_path / "autoencoder" / "config.json").exists()
    with pytest.raises(FileExistsError):
        unpack(FOLDER, tmp_path, spent=60.0)
