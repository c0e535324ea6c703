"""Putting the trained parts together as a diffusers model folder."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderTiny,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from .unet import SCHEDULE

LIMIT = 24_000_000
"""Bytes that the whole folder may take."""


def scheduler() -> DPMSolverMultistepScheduler:
    """Build the scheduler that the folder names."""
    return DPMSolverMultistepScheduler(
        **SCHEDULE, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing"
    )


def pipeline(
    text: Path, autoencoder: Path, unet: UNet2DConditionModel, scaling: float
) -> StableDiffusionPipeline:
    """Put trained parts together; ``scaling`` brings latents to unit spread."""
    vae = AutoencoderTiny.from_pretrained(autoencoder)
    vae.register_to_config(scaling_factor=scaling)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel.from_pretrained(text / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(text / "tokenizer"),
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(pipe: StableDiffusionPipeline, folder: Path) -> int:
    """Save a pipeline in fp16 as safetensors; return the bytes it takes.

    A README.md in the folder stays.
    """
    fresh = folder.with_name(folder.name + ".fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    pipe.to(torch.float16).save_pretrained(fresh, safe_serialization=True)
    _computed_in_float32(fresh / "text_encoder" / "config.json")
    _without_paths(fresh)
    _with_vocabulary(fresh / "tokenizer")
    for file in fresh.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    if (folder / "README.md").exists():
        shutil.copy2(folder / "README.md", fresh)
    size = sum(file.stat().st_size for file in fresh.rglob("*") if file.is_file())
    if size > LIMIT:
        raise ValueError(f"The model takes {size} bytes, more than {LIMIT}.")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return size


def _computed_in_float32(config: Path) -> None:
    """Let transformers load the text encoder as diffusers loads the rest: in float32.

    Without this it takes the files' fp16, and the UNet gets a mix of both.
    """
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _without_paths(folder: Path) -> None:
    """Drop what the configuration files should not say.

    That is the folders of the training machine, and the entry that AutoencoderTiny writes for
    the pipeline but warns of when it reads it back.
    """
    for file in folder.rglob("*.json"):
        content = json.loads(file.read_text())
        if not isinstance(content, dict):
            continue
        dropped = [content.pop("_name_or_path", None)]
        if content.get("_class_name") == "AutoencoderTiny":
            dropped.append(content.pop("block_out_channels", None))
        if any(dropped):
            file.write_text(json.dumps(content, indent=2) + "\n")


def _with_vocabulary(folder: Path) -> None:
    """Add the tokenizer's older two files, for programs that do not read tokenizer.json."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
