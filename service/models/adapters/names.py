"""Names of the tensors in adapter files: which module each changes, and its part in the change."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Part(StrEnum):
    """Parts of a model that adapters change; the value is the pipeline's name for it."""

    UNET = "unet"
    TEXT = "text_encoder"
    TEXT_2 = "text_encoder_2"


ROLES: Final = {
    # kohya; diffusers and PEFT; diffusers before PEFT.
    **dict.fromkeys(("lora_down.weight", "lora_A.weight", "lora.down.weight"), "down"),
    **dict.fromkeys(("lora_up.weight", "lora_B.weight", "lora.up.weight"), "up"),
    **dict.fromkeys(("lora_A.default.weight", "lora_linear_layer.down.weight"), "down"),
    **dict.fromkeys(("lora_B.default.weight", "lora_linear_layer.up.weight"), "up"),
    "lora_mid.weight": "mid",
    "alpha": "alpha",
    # DoRA, as kohya and as PEFT write it.
    "dora_scale": "dora",
    **dict.fromkeys(("lora_magnitude_vector", "lora_magnitude_vector.weight"), "magnitude"),
    # LoHa and LoKr, as LyCORIS writes them.
    **{f"hada_{name}": name for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f"lokr_{name}": f"k_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    "diff": "diff",
}
"""By the end of a tensor's name its part in the change of one module."""

ENDS: Final = sorted(ROLES, key=len, reverse=True)

PREFIXES: Final = (
    ("lora_unet_", Part.UNET),
    ("lora_te1_", Part.TEXT),
    ("lora_te2_", Part.TEXT_2),
    ("lora_te_", Part.TEXT),
    ("unet.", Part.UNET),
    ("text_encoder_2.", Part.TEXT_2),
    ("text_encoder.", Part.TEXT),
    ("base_model.model.", Part.UNET),
    ("down_blocks.", Part.UNET),
    ("mid_block.", Part.UNET),
    ("up_blocks.", Part.UNET),
)
"""Beginnings of names, in the order in which they are tried; the last ones belong to the name."""

PROCESSOR: Final = re.compile(r"\.processor\.(to_q|to_k|to_v|to_out)(?:_lora)?\.(down|up)\.weight$")
"""Attention processors, as diffusers wrote them before 0.22."""


@dataclass(frozen=True)
class Place:
    """A module of a model."""

    part: Part
    module: str
    """Its name with ``_`` for every dot, without a leading ``text_model``."""


def flat(module: str) -> str:
    """Return a module's name as ``Place`` has it."""
    return module.replace(".", "_").removeprefix("text_model_")


def parse(key: str) -> tuple[Place, str] | None:
    """Return the module that a tensor belongs to, and its role there; None for an unknown name."""
    if found := PROCESSOR.search(key):
        layer = "to_out.0" if found[1] == "to_out" else found[1]
        key = f"{key[: found.start()]}.{layer}.lora.{found[2]}.weight"
    end = next((end for end in ENDS if key.endswith(f".{end}")), None)
    if end is None:
        return None
    module = key.removesuffix(f".{end}")
    for prefix, part in PREFIXES:
        if module.startswith(prefix):
            own = prefix.split(".")[0] in {"down_blocks", "mid_block", "up_blocks"}
            rest = module if own else module.removeprefix(prefix)
            return Place(part, flat(rest)), ROLES[end]
    return None
