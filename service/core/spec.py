"""What an image is made from: each field of a request, declared once."""

from dataclasses import dataclass, fields, replace
from typing import Final, get_type_hints

from service.core.fields import RequestField, Setting, asked
from service.core.prompt.syntax import LongPrompts, PromptSyntax
from service.core.sampler import ETA, SAMPLER_NAMES, Sampler, Schedule, resolved

RANDOM_SEED: Final = -1
"""What clients send for a seed of the service's choice."""

CHARACTERS: Final = Setting("max_prompt_chars")
SIDE: Final = {
    "default": 512,
    "default_setting": "default_size",
    "low": Setting("min_size"),
    "high": Setting("max_size"),
    "multiple": 64,
}


LONGEST_MODEL: Final = 200
"""Characters of the name of a model."""

MOST_ADAPTERS: Final = 8
"""Of one request."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA file by its name in the catalogue, and how strongly it changes the model."""

    name: str
    weight: float = 1.0
    """Of its changes to the denoiser."""
    text_weight: float
    """Of its changes to the text encoders; requests that leave it out mean ``weight``."""


@dataclass(frozen=True, kw_only=True)
class GenerationSpec:
    """What an image is made from; width and height in pixels."""

    prompt: str = asked(
        "What the image shows.", high=CHARACTERS, blank=False, example="a lighthouse at dusk"
    )
    negative_prompt: str = asked(
        "Things to keep out of the image.", default="", high=CHARACTERS, example="fog"
    )
    steps: int = asked(
        "Denoising steps: more take longer and add detail.",
        default=20,
        default_setting="default_steps",
        low=1,
        high=Setting("max_steps"),
        infotext="Steps",
    )
    width: int = asked("Width of the image in pixels.", **SIDE)
    height: int = asked("Height of the image in pixels.", **SIDE)
    sampler: str = asked(
        "Sampler: how noise is removed from step to step.",
        default=Sampler.DPMPP_2M,
        default_setting="default_sampler",
        choices=SAMPLER_NAMES,
        infotext="Sampler",
    )
    schedule: str = asked(
        "Noise schedule: the noise levels that the sampler steps through. `automatic` takes those "
        "of the model.",
        default=Schedule.AUTOMATIC,
        default_setting="default_schedule",
        choices=tuple(Schedule),
        infotext="Schedule type",
    )
    guidance_scale: float = asked(
        "How closely the image follows the prompt.",
        default=7.5,
        default_setting="default_guidance_scale",
        low=0,
        high=30,
        infotext="CFG scale",
    )
    seed: int = asked(
        "Seed of the first image: the same seed gives the same image. -1 picks a random one; "
        "the answer names it.",
        default=0,
        low=0,
        high=2**32 - 1,
        random=RANDOM_SEED,
        example=42,
        infotext="Seed",
    )
    num_images: int = asked(
        "Number of images, each with the next seed.", default=1, low=1, high=Setting("max_images")
    )
    adapters: tuple[Adapter, ...] = asked(
        "LoRA files that change the model for these images only, by name and weight. "
        "`GET /models/adapters` lists the names.",
        default=(),
        entries=Adapter,
        high=MOST_ADAPTERS,
    )
    guidance_rescale: float = asked(
        "Share of the contrast that guidance adds to take back, for models whose images become too "
        "bright by it. 0 takes back nothing; without guidance it changes nothing.",
        default=0.0,
        default_setting="default_guidance_rescale",
        low=0,
        high=1,
        infotext="CFG rescale",
        rare=True,
    )
    eta: float = asked(
        f"Share of new noise in each step of the sampler {' or '.join(ETA)}; other samplers take 0 "
        "only.",
        default=0.0,
        default_setting="default_eta",
        low=0,
        high=1,
        infotext="Eta",
        rare=True,
    )
    clip_skip: int = asked(
        "Layer of the text encoder whose output guides the image, counted from the last: 1 is the "
        "one that the model was trained with, 2 the one before it. 0 means 1.",
        default=1,
        low=0,
        high=Setting("max_clip_skip"),
        example=2,
        infotext="Clip skip",
        rare=True,
    )
    prompt_syntax: str = asked(
        "Syntax of both prompts: plain text, or AUTOMATIC1111's, in which brackets and some words "
        "have a meaning.",
        default=PromptSyntax.PLAIN,
        choices=tuple(PromptSyntax),
        infotext="Prompt syntax",
        rare=True,
    )
    long_prompts: str = asked(
        "Treatment of a prompt that is too long for the text encoder: its end is cut, or it is "
        "read in chunks. With the syntax a1111 the default is chunks.",
        default=LongPrompts.CUT,
        choices=tuple(LongPrompts),
        infotext="Long prompts",
        rare=True,
    )
    model: str = asked(
        "Model that draws the images; empty for the default model. `GET /models` lists the names.",
        default="",
        high=LONGEST_MODEL,
        catalog=True,
        example="demo",
    )

    def __post_init__(self) -> None:
        """Replace what can be said in two ways by the one that is meant."""
        sampler, schedule = resolved(self.sampler, self.schedule)
        object.__setattr__(self, "sampler", sampler)
        object.__setattr__(self, "schedule", schedule)
        if self.clip_skip == 0:
            object.__setattr__(self, "clip_skip", 1)

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed per image: the asked one and those that follow it, modulo 2**32."""
        return tuple((self.seed + i) % 2**32 for i in range(self.num_images))


FIELDS: Final[tuple[RequestField, ...]] = tuple(
    replace(each.metadata["asked"], name=each.name, kind=get_type_hints(GenerationSpec)[each.name])
    for each in fields(GenerationSpec)
)
TEXTS: Final = tuple(each.name for each in FIELDS if each.is_text)
"""Fields that a user wrote: they stay out of logs, traces and headers."""
