"""Train the demo model from nothing: text encoder, autoencoder, UNet, export.

Run from the repository's root: python -m scripts.demo_model.train. Each stage leaves its result in
the work folder and is skipped when it is there; the UNet resumes from its last checkpoint.
"""

import argparse
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
from diffusers.training_utils import EMAModel
from transformers import CLIPTextModel, CLIPTokenizer

from .autoencoder import train_autoencoder
from .text_encoder import train_text_encoder
from .unet import SCHEDULE, averaged_unet, train_unet

TEXT_STEPS = 500
LIMIT = 24_000_000
"""Bytes that the whole folder may take."""


def main() -> None:
    """Read the command line and run the stages that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".training"))
    parser.add_argument("--out", type=Path, default=Path("service/demo"))
    parser.add_argument("--minutes", type=float, default=68, help="for the UNet, in all")
    parser.add_argument("--autoencoder-minutes", type=float, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--start-from",
        type=Path,
        help="go on from an exported model for --minutes, in an empty work folder",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work: Path = options.work
    work.mkdir(exist_ok=True)
    minutes = options.minutes
    if options.start_from:
        # Half of the schedule counts as done: big images, and a learning rate that falls.
        unpack(options.start_from, work, spent=60 * minutes)
        minutes *= 2
    if not (work / "text" / "text_encoder").exists():
        train_text_encoder(work / "text", steps=TEXT_STEPS)
    if not (work / "autoencoder").exists():
        train_autoencoder(work / "autoencoder", minutes=options.autoencoder_minutes)
    train_unet(work, minutes=minutes, workers=options.threads)
    pipe, counters = pipeline(work)
    print(counters, "bytes:", export(pipe, options.out))


def unpack(model: Path, work: Path, *, spent: float) -> None:
    """Lay an exported model out as a work folder whose UNet has been trained for ``spent`` seconds.

    The optimiser's state is not part of an export, so it starts anew.
    """
    if (work / "unet.pt").exists():
        raise FileExistsError(f"{work} holds a training run already: go on without --start-from.")
    CLIPTokenizer.from_pretrained(model / "tokenizer").save_pretrained(work / "text" / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32)
    text_encoder.save_pretrained(work / "text" / "text_encoder")
    vae = AutoencoderTiny.from_pretrained(model / "vae").float()
    vae.save_pretrained(work / "autoencoder")
    unet = UNet2DConditionModel.from_pretrained(model / "unet").float()
    average = EMAModel(unet.parameters()).state_dict()
    done = {"step": 0, "seen": 0, "spent": spent, "scaling": vae.config.scaling_factor}
    torch.save({"unet": unet.state_dict(), "average": average, "done": done}, work / "unet.pt")


def pipeline(work: Path) -> tuple[StableDiffusionPipeline, dict[str, float]]:
    """Put the trained parts of a work folder together; return the training's counters too."""
    unet, counters = averaged_unet(work)
    vae = AutoencoderTiny.from_pretrained(work / "autoencoder")
    vae.register_to_config(scaling_factor=counters["scaling"])  # Brings latents to unit spread.
    scheduler = DPMSolverMultistepScheduler(
        **SCHEDULE, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing"
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel.from_pretrained(work / "text" / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "text" / "tokenizer"),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipe, counters


def export(pipe: StableDiffusionPipeline, folder: Path) -> int:
    """Save a pipeline in fp16 as safetensors; return the bytes it takes.

    A README.md in the folder stays.
    """
    fresh = folder.with_name(folder.name + ".fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    pipe.to(torch.float16).save_pretrained(fresh, safe_serialization=True)
    for file in fresh.rglob("*.json"):
        _tidy(file)
    # transformers writes tokenizer.json alone, which not every program reads.
    pipe.tokenizer.backend_tokenizer.model.save(str(fresh / "tokenizer"))
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


def _tidy(file: Path) -> None:
    """Correct what a configuration file says."""
    before = json.loads(file.read_text(encoding="utf-8"))
    content = {**before}
    content.pop("_name_or_path", None)  # A folder of the training machine.
    if content.get("_class_name") == "AutoencoderTiny":
        # It writes this for the pipeline but warns of it when it reads it back.
        content.pop("block_out_channels", None)
    if file.parent.name == "text_encoder":
        # Else transformers loads the files' fp16 while diffusers loads the rest in float32.
        content["dtype"] = "float32"
    if content != before:
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
