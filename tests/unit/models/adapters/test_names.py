"""Names of tensors in adapter files."""

import pytest

from service.models.adapters.names import Part, Place, parse

ATTENTION = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
DOTTED = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
TEXT = "encoder_layers_3_self_attn_q_proj"


@pytest.mark.parametrize(
    ("key", "part", "module", "role"),
    [
        (f"lora_unet_{ATTENTION}.lora_down.weight", Part.UNET, ATTENTION, "down"),
        (f"lora_unet_{ATTENTION}.alpha", Part.UNET, ATTENTION, "alpha"),
        (f"lora_unet_{ATTENTION}.dora_scale", Part.UNET, ATTENTION, "dora"),
        (f"lora_unet_{ATTENTION}.hada_w1_a", Part.UNET, ATTENTION, "w1_a"),
        (f"lora_unet_{ATTENTION}.lokr_w1_a", Part.UNET, ATTENTION, "k_w1_a"),
        (f"unet.{DOTTED}.to_q.lora_B.weight", Part.UNET, ATTENTION, "up"),
        (f"unet.{DOTTED}.to_q.lora.down.weight", Part.UNET, ATTENTION, "down"),
        (f"unet.{DOTTED}.processor.to_q_lora.up.weight", Part.UNET, ATTENTION, "up"),
        (f"{DOTTED}.processor.to_q_lora.up.weight", Part.UNET, ATTENTION, "up"),
        (f"base_model.model.{DOTTED}.to_q.lora_A.weight", Part.UNET, ATTENTION, "down"),
        (f"unet.{DOTTED}.to_q.lora_magnitude_vector", Part.UNET, ATTENTION, "magnitude"),
        (f"lora_te_text_model_{TEXT}.lora_up.weight", Part.TEXT, TEXT, "up"),
        (f"lora_te1_text_model_{TEXT}.lora_up.weight", Part.TEXT, TEXT, "up"),
        (f"lora_te2_text_model_{TEXT}.lora_up.weight", Part.TEXT_2, TEXT, "up"),
        (
            "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight",
            Part.TEXT,
            TEXT,
            "down",
        ),
        (
            "text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj.lora_linear_layer.up.weight",
            Part.TEXT_2,
            TEXT,
            "up",
        ),
    ],
)
def test_names_as_trainers_write_them(key: str, part: Part, module: str, role: str) -> None:
    """One module has one name, whoever wrote the file."""
    assert parse(key) == (Place(part, module), role)


@pytest.mark.parametrize(
    "key",
    ["emb_params", f"lora_unet_{ATTENTION}.bias", "other.lora_down.weight", "lora_down.weight", ""],
)
def test_unknown_names(key: str) -> None:
    """What is not understood has no module."""
    assert parse(key) is None
