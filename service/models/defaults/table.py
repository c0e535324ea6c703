"""Recipes of well-known models: by their names on the hub, and by parts of names.

Each row has the place that says so. A name on the hub is sure; a part of any other name is a guess.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from service.core.recipe import Recipe
from service.core.sampler import Sampler, Schedule

TRAILING: Final = Schedule.SGM_UNIFORM
"""diffusers' ``timestep_spacing="trailing"``."""

TURBO: Final = Recipe(
    name="turbo",
    steps=4,
    guidance_scale=0.0,
    sampler=Sampler.EULER_A,
    schedule=TRAILING,
    size=512,
)
SD_TURBO: Final = replace(TURBO, sampler=Sampler.EULER)
LIGHTNING: Final = Recipe(
    name="lightning", steps=4, guidance_scale=0.0, sampler=Sampler.EULER, schedule=TRAILING
)
HYPER: Final = Recipe(
    name="hyper-sd", steps=8, guidance_scale=0.0, sampler=Sampler.DDIM, schedule=TRAILING
)
HYPER_GUIDED: Final = replace(HYPER, name="hyper-sd-cfg", guidance_scale=5.0)
HYPER_ONE: Final = replace(HYPER, steps=1, sampler=Sampler.TCD, schedule=None, eta=1.0)
LCM: Final = Recipe(name="lcm", steps=4, guidance_scale=8.0, sampler=Sampler.LCM)
LCM_LORA: Final = Recipe(name="lcm-lora", steps=4, guidance_scale=1.0, sampler=Sampler.LCM)
DMD2: Final = Recipe(name="dmd2", steps=4, guidance_scale=0.0, sampler=Sampler.LCM)
TCD: Final = Recipe(name="tcd", steps=4, guidance_scale=0.0, sampler=Sampler.TCD, eta=0.3)
PCM: Final = Recipe(
    name="pcm", steps=4, guidance_scale=1.0, sampler=Sampler.DDIM, schedule=TRAILING
)
PCM_GUIDED: Final = replace(PCM, name="pcm-cfg", guidance_scale=7.5)
PCM_LIKE_LCM: Final = replace(PCM, sampler=Sampler.LCM, schedule=None)
ZERO_SNR: Final = Recipe(name="zero-snr", guidance_rescale=0.7)
"""arXiv:2305.08891, section 3.4."""

SD_TURBO_FILE: Final = (
    "https://huggingface.co/stabilityai/sd-turbo/blob/main/scheduler/scheduler_config.json"
)
ADD: Final = "https://huggingface.co/docs/diffusers/api/pipelines/stable_diffusion/sdxl_turbo"
BYTEDANCE_LIGHTNING: Final = "https://huggingface.co/ByteDance/SDXL-Lightning"
BYTEDANCE_HYPER: Final = "https://huggingface.co/ByteDance/Hyper-SD"
LCM_CARD: Final = "https://huggingface.co/docs/diffusers/using-diffusers/inference_with_lcm"
DMD2_CARD: Final = "https://huggingface.co/tianweiy/DMD2"
TCD_CARD: Final = "https://huggingface.co/docs/diffusers/using-diffusers/inference_with_tcd_lora"
PCM_CARD: Final = "https://github.com/G-U-N/Phased-Consistency-Model"


@dataclass(frozen=True)
class Known:
    """A model on the hub whose publisher says what it wants."""

    name: str
    recipe: Recipe
    said_by: str


@dataclass(frozen=True)
class Part:
    """A part of names that models of one kind have in common."""

    pattern: str
    """Searched for in the name in lower case, between marks that are no letters."""
    recipe: Recipe
    said_by: str


MODELS: Final = (
    Known("stabilityai/sdxl-turbo", TURBO, ADD),
    Known("stabilityai/sd-turbo", SD_TURBO, SD_TURBO_FILE),
    Known(
        "simianluo/lcm_dreamshaper_v7", LCM, "https://huggingface.co/SimianLuo/LCM_Dreamshaper_v7"
    ),
)
"""By their names on the hub, in lower case."""

PARTS: Final = (
    Part(r"sdxl[-_ ]?turbo|sd[-_ ]?xl[-_ ]?turbo", TURBO, ADD),
    Part(r"sd[-_ ]?turbo", SD_TURBO, SD_TURBO_FILE),
    Part(r"turbo", replace(TURBO, size=None), ADD),
    Part(r"lightning", LIGHTNING, BYTEDANCE_LIGHTNING),
    Part(r"hyper[-_ ]?sd(?:xl|15|21)?.*cfg", HYPER_GUIDED, BYTEDANCE_HYPER),
    Part(r"hyper[-_ ]?sd(?:xl|15|21)?[-_ ]1[-_ ]?step", HYPER_ONE, BYTEDANCE_HYPER),
    Part(r"hyper[-_ ]?sd(?:xl|15|21)?", HYPER, BYTEDANCE_HYPER),
    Part(r"lcm[-_ ]?lora", LCM_LORA, LCM_CARD),
    Part(r"lcm", LCM_LORA, LCM_CARD),
    Part(r"dmd2?", DMD2, DMD2_CARD),
    Part(r"tcd", TCD, TCD_CARD),
    Part(r"pcm.*normal[-_ ]?cfg", PCM_GUIDED, PCM_CARD),
    Part(r"pcm.*lcm[-_ ]?like", PCM_LIKE_LCM, PCM_CARD),
    Part(r"pcm", PCM, PCM_CARD),
)
"""By parts of names, the first that is there."""

STEPS: Final = re.compile(r"(?<![0-9])([1-9]|1[0-6])[-_ ]?steps?(?![a-z])")
"""The number of steps that a distilled model was made for, in its name."""


HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
"""Where a word begins in a name like myModelTurbo."""


def by_id(model_id: str) -> Recipe | None:
    """Return the recipe of a model on the hub that is in the table."""
    row = next((row for row in MODELS if row.name == model_id.lower()), None)
    return None if row is None else replace(row.recipe, source=row.said_by)


def by_name(name: str) -> Recipe | None:
    """Guess the recipe of a model, or of a LoRA, from its name; None where nothing tells."""
    name = HUMP.sub("-", name).lower()
    row = next((row for row in PARTS if _has(name, row.pattern)), None)
    if row is None:
        return None
    steps = STEPS.search(name)
    found = replace(row.recipe, source=f"name ({row.said_by})", guessed=True)
    return replace(found, steps=int(steps[1])) if steps else found


def _has(name: str, pattern: str) -> bool:
    return re.search(rf"(?<![a-z])(?:{pattern})(?![a-z])", name) is not None
