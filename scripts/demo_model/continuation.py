"""Going on from a model that was exported before, where no work folder is left."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer


def unpack(model: Path, work: Path, *, spent: float) -> None:
    """Lay an exported model out as a work folder whose UNet has been trained for ``spent`` seconds.

    The optimiser's state is not part of an export, so it starts anew.
    """
    if (work / "unet.pt").exists():
        raise FileExistsError(f"{work} holds a training run already: go on without --start-from.")
    work.mkdir(parents=True, exist_ok=True)
    CLIPTokenizer.from_pretrained(model / "tokenizer").save_pretrained(work / "text" / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32)
    text_encoder.save_pretrained(work / "text" / "text_encoder")
    vae = AutoencoderTiny.from_pretrained(model / "vae")
    vae.float().save_pretrained(work / "autoencoder")
    unet = UNet2DConditionModel.from_pretrained(model / "unet").float().state_dict()
    scaling = json.loads((model / "vae" / "config.json").read_text())["scaling_factor"]
    state = {"unet": unet, "average": unet, "step": 0, "seen": 0, "spent": spent}
    torch.save({**state, "scaling": scaling}, work / "unet.pt")
