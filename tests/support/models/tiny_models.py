"""Random-weight models of the true shapes of Stable Diffusion, small enough for a CPU test."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    TCDScheduler,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from service.models.vocabulary import LENGTH, MARKS, WORD_END

CHANNELS = (32, 64)
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tokenizer(folder: Path, *, pad: str = MARKS[1]) -> CLIPTokenizer:
    """Build a CLIP tokenizer that knows letters only: one token per letter."""
    letters = [chr(c) for c in range(33, 127)]
    tokens = [*letters, *(letter + WORD_END for letter in letters), *MARKS]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    numbered = {token: number for number, token in enumerate(tokens)}
    vocabulary.write_text(json.dumps(numbered), encoding="utf-8")
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer(str(vocabulary), str(merges), pad_token=pad, model_max_length=LENGTH)


def text_config(vocabulary: int, **changes: Any) -> CLIPTextConfig:
    """Describe a two-layer CLIP text encoder, 32 wide."""
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    return CLIPTextConfig(**{**settings, **changes})


def autoencoder(**changes: Any) -> AutoencoderKL:
    """Build an AutoencoderKL that shrinks by two per side and has four latent channels."""
    settings: dict[str, Any] = {
        "block_out_channels": CHANNELS,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
        "latent_channels": 4,
        "norm_num_groups": 8,
    }
    return AutoencoderKL(**{**settings, **changes})


def unet(**changes: Any) -> UNet2DConditionModel:
    """Build a two-level UNet with cross-attention."""
    settings: dict[str, Any] = {
        "block_out_channels": CHANNELS,
        "layers_per_block": 1,
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**{**settings, **changes})


def build_sd(
    folder: Path,
    *,
    vae: Any = None,
    unet_changes: Mapping[str, Any] | None = None,
    safety_checker: Any = None,
    feature_extractor: Any = None,
    **schedule: Any,
) -> Path:
    """Write a model of SD 1.5's shape; ``schedule`` changes its noise schedule."""
    torch.manual_seed(0)
    words = tokenizer(folder / "tokenizer")
    pipeline: Any = StableDiffusionPipeline(
        unet=unet(**(unet_changes or {})),
        vae=vae or autoencoder(),
        text_encoder=CLIPTextModel(text_config(len(words))),
        tokenizer=words,
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1, **SCHEDULE, **schedule),
        safety_checker=safety_checker,
        feature_extractor=feature_extractor,
        requires_safety_checker=safety_checker is not None,
    )
    pipeline.save_pretrained(folder)
    return folder


def build_sdxl(folder: Path, **unet_changes: Any) -> Path:
    """Write a model of SDXL's shape: two text encoders, pooled text and six time ids."""
    torch.manual_seed(0)
    words = tokenizer(folder / "tokenizer")
    settings = text_config(len(words), hidden_act="gelu", projection_dim=32)
    pipeline: Any = StableDiffusionXLPipeline(
        unet=unet(
            cross_attention_dim=64,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
            **unet_changes,
        ),
        vae=autoencoder(),
        text_encoder=CLIPTextModel(settings),
        text_encoder_2=CLIPTextModelWithProjection(settings),
        tokenizer=words,
        tokenizer_2=words,
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **SCHEDULE),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def build_v_prediction(folder: Path) -> Path:
    """Write a model that predicts velocity, as SD 2.x at 768 does."""
    return build_sd(folder, prediction_type="v_prediction")


def build_lcm(folder: Path) -> Path:
    """Write a distilled model: the guidance scale enters by ``time_cond_proj_dim``."""
    return build_sd(folder, unet_changes={"time_cond_proj_dim": 16})


def build_inpaint(folder: Path) -> Path:
    """Write an inpainting model of SD 1.5's shape, whose UNet takes nine channels."""
    build_sd(folder, unet_changes={"in_channels": 9})
    return _write_index(folder, _class_name="StableDiffusionInpaintPipeline")


def build_inpaint_sd2(folder: Path) -> Path:
    """Write an inpainting model of SD 2.x's shape."""
    build_sd2(folder, in_channels=9)
    return _write_index(folder, _class_name="StableDiffusionInpaintPipeline")


def build_inpaint_xl(folder: Path) -> Path:
    """Write an inpainting model of SDXL's shape."""
    build_sdxl(folder, in_channels=9)
    return _write_index(folder, _class_name="StableDiffusionXLInpaintPipeline")


def build_inpaint_tiny_vae(folder: Path) -> Path:
    """Write an inpainting model with an AutoencoderTiny of four channels."""
    build_sd(folder, vae=tiny_autoencoder(4), unet_changes={"in_channels": 9})
    return _write_index(folder, _class_name="StableDiffusionInpaintPipeline")


def tiny_autoencoder(channels: int) -> AutoencoderTiny:
    """Build an AutoencoderTiny that shrinks by four per side."""
    torch.manual_seed(1)
    return AutoencoderTiny(
        latent_channels=channels,
        encoder_block_out_channels=(16, 16, 16),
        decoder_block_out_channels=(16, 16, 16),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )


def build_tiny_vae(folder: Path) -> Path:
    """Write a model with an AutoencoderTiny of twelve channels that shrinks by four."""
    small = tiny_autoencoder(12)
    return build_sd(folder, vae=small, unet_changes={"in_channels": 12, "out_channels": 12})


def build_lenient(folder: Path) -> Path:
    """Write a model with a safety checker that flags nothing."""
    return build_with_safety_checker(folder, strict=False)


def build_with_safety_checker(folder: Path, *, strict: bool) -> Path:
    """Write a model with a safety checker that flags everything, or nothing."""
    torch.manual_seed(2)
    tower = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            text_config=tower,
            vision_config={**tower, "image_size": 32, "patch_size": 16},
            projection_dim=16,
        )
    )
    # A cosine is at least -1, and at most 1.
    checker.concept_embeds_weights.data.fill_(-2.0 if strict else 2.0)
    checker.special_care_embeds_weights.data.fill_(2.0)
    eyes = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return build_sd(folder, safety_checker=checker, feature_extractor=eyes)


def write_scheduler(folder: Path, scheduler: Any) -> Path:
    """Give a model another scheduler, with a file that names all of its keys."""
    scheduler.save_pretrained(folder / "scheduler")
    return _name_scheduler(folder, type(scheduler).__name__)


def write_schedule(folder: Path, class_name: str, **names: Any) -> Path:
    """Rewrite a model's scheduler file by hand, as old models have it: it names few keys.

    diffusers remembers the keys that such a file leaves out (``_use_default_values``), and
    treats them in another way than keys that a file names with their default values.
    """
    text = json.dumps({"_class_name": class_name, **SCHEDULE, **names})
    (folder / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
    return _name_scheduler(folder, class_name)


def _name_scheduler(folder: Path, class_name: str) -> Path:
    # A pipeline takes the class from here and not from the scheduler's file.
    return _write_index(folder, scheduler=["diffusers", class_name])


def _write_index(folder: Path, **changes: Any) -> Path:
    index = folder / "model_index.json"
    parts = json.loads(index.read_text(encoding="utf-8"))
    index.write_text(json.dumps({**parts, **changes}), encoding="utf-8")
    return folder


def build_sd2(folder: Path, *, scheduler: Any = None, **unet_changes: Any) -> Path:
    """Write a model of SD 2.1's shape: a wider text encoder with GELU, padded with ``!``."""
    torch.manual_seed(3)
    words = tokenizer(folder / "tokenizer", pad="!")
    settings = text_config(
        len(words), hidden_size=64, intermediate_size=75, num_attention_heads=8, hidden_act="gelu"
    )
    pipeline: Any = StableDiffusionPipeline(
        unet=unet(
            cross_attention_dim=64,
            use_linear_projection=True,
            attention_head_dim=(4, 8),
            **unet_changes,
        ),
        vae=autoencoder(),
        text_encoder=CLIPTextModel(settings),
        tokenizer=words,
        scheduler=scheduler or DDIMScheduler(clip_sample=False, steps_offset=1, **SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def build_sd21_v(folder: Path) -> Path:
    """Write SD 2.1 at 768: velocity, and an old file of DDIM that names few keys."""
    return write_schedule(build_sd2(folder), "DDIMScheduler", prediction_type="v_prediction")


def build_sd21_base(folder: Path) -> Path:
    """Write SD 2.1 at 512: noise, and an old file of Euler that names few keys."""
    return write_schedule(build_sd2(folder), "EulerDiscreteScheduler")


def build_zero_snr(folder: Path) -> Path:
    """Write a model whose schedule ends in pure noise (arXiv:2305.08891)."""
    scheduler = DDIMScheduler(
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        **SCHEDULE,
    )
    return build_sd2(folder, scheduler=scheduler)


def build_sdxl_without_zeros(folder: Path) -> Path:
    """Write an SDXL model that encodes an empty negative prompt as any other text."""
    return _write_index(build_sdxl(folder), force_zeros_for_empty_prompt=False)


def build_turbo(folder: Path) -> Path:
    """Write a model of SDXL Turbo's shape: ancestral Euler from the last timestep on."""
    scheduler = EulerAncestralDiscreteScheduler(timestep_spacing="trailing", **SCHEDULE)
    return write_scheduler(build_sdxl(folder), scheduler)


def build_lcm_schedule(folder: Path) -> Path:
    """Write a distilled model with the scheduler that it was distilled with."""
    return write_scheduler(build_lcm(folder), LCMScheduler(**SCHEDULE))


def build_tcd_schedule(folder: Path) -> Path:
    """Write an SDXL model with the scheduler of trajectory consistency distillation."""
    return write_scheduler(build_sdxl(folder), TCDScheduler(**SCHEDULE))


def build_tiny_vae_old(folder: Path) -> Path:
    """Write a model with an AutoencoderTiny, and an old file of PNDM that names few keys."""
    return write_schedule(build_tiny_vae(folder), "PNDMScheduler")


def build_odd_tokenizer(folder: Path) -> Path:
    """Write a model with marks of its own, short texts, an attention mask and an old file.

    The file says what pipelines of Stable Diffusion correct: to clip, and to start at 0.
    """
    build_sd(folder)
    torch.manual_seed(4)
    words = odd_tokenizer(folder / "tokenizer")
    settings = text_config(len(words), pad_token_id=0)
    settings.use_attention_mask = True
    encoder: Any = CLIPTextModel(settings)
    encoder.save_pretrained(folder / "text_encoder")
    return write_schedule(folder, "DDIMScheduler", clip_sample=True, steps_offset=0)


def odd_tokenizer(folder: Path) -> CLIPTokenizer:
    """Replace a folder's tokenizer by one with other marks, which reads 24 tokens."""
    words = CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        bos_token="<begin>",  # noqa: S106 - a mark in texts
        eos_token="<end>",  # noqa: S106 - a mark in texts
        unk_token="?",  # noqa: S106 - a mark in texts
        pad_token="!",  # noqa: S106 - a mark in texts
        model_max_length=24,
    )
    words.save_pretrained(folder)
    return words


def with_loud_unet(folder: Path) -> Path:
    """Let a model's UNet predict values of about variance one, as a trained UNet does.

    Random weights predict a third of that, and samplers then differ by less than a level of 255.
    """
    (path,) = (folder / "unet").glob("*.safetensors")
    tensors = load_file(path)
    tensors["conv_out.weight"] *= 2.5
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def without_token_limit(folder: Path) -> Path:
    """Take the longest prompt out of a model's tokenizer settings."""
    path = folder / "tokenizer" / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["model_max_length"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    return folder
