"""What an image is made from: each field of a request, declared once."""

import math
from dataclasses import asdict, dataclass, fields, replace
from types import UnionType
from typing import Any, Final, get_args, get_type_hints

from service.core.fields import RequestField, Setting, asked
from service.core.inputs import (
    LEAST_OF_LATENTS,
    Hires,
    HiresResize,
    InputImage,
    MaskFill,
    Pad,
    Resize,
)
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

MASKED: Final = ("mask", "pad")
"""Fields by which a part of an image is drawn anew."""


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

    image: InputImage | None = asked(
        "Image to begin with: base64 of a file, or a finished job of yours as "
        '`{"job": id, "index": 0}`.',
        default=None,
        needs=("image",),
    )
    mask: InputImage | None = asked(
        "Mask of `image`: it is repainted where the mask is white. It is given as an image is.",
        default=None,
        needs=("mask",),
    )
    strength: float = asked(
        "How much of `image` is redrawn: 0 nothing, 1 all of it.",
        default=0.8,
        low=0,
        high=1,
        needs=("image",),
        infotext="Denoising strength",
    )
    resize: str = asked(
        "How `image` gets the size that is drawn, if it has another shape.",
        default=Resize.CROP,
        choices=tuple(Resize),
        needs=("image",),
        infotext="Resize mode",
    )
    mask_blur: int = asked(
        "Radius in pixels by which the edge of the repainted part is blurred.",
        default=4,
        low=0,
        high=64,
        needs=MASKED,
        infotext="Mask blur",
    )
    mask_padding: int = asked(
        "Pixels around the repainted part that are drawn with it, at the full size; the result is "
        "put back into the image. -1 draws the whole image.",
        default=-1,
        low=-1,
        high=512,
        example=32,
        needs=MASKED,
        infotext="Masked area padding",
        rare=True,
    )
    mask_invert: bool = asked(
        "Repaint where the mask is black.",
        default=False,
        needs=("mask",),
        infotext="Mask mode",
        rare=True,
    )
    mask_fill: str = asked(
        "What the repainted part begins with.",
        default=MaskFill.ORIGINAL,
        choices=tuple(MaskFill),
        needs=MASKED,
        infotext="Masked content",
        rare=True,
    )
    pad: Pad | None = asked(
        "Sides to add to `image` before it is drawn; what is added is repainted.",
        default=None,
        needs=("pad",),
    )
    hires: Hires | None = asked(
        "Second pass in a larger size, which begins with the image of the first.",
        default=None,
        needs=("hires",),
    )
    subseed: int = asked(
        "Seed of the variation of the first image. -1 picks a random one; the answer names it.",
        default=0,
        low=0,
        high=2**32 - 1,
        random=RANDOM_SEED,
        example=7,
        needs=("subseed_strength",),
        infotext="Variation seed",
    )
    subseed_strength: float = asked(
        "Share of `subseed` in the noise that an image begins with. With more than 0 all images "
        "have the seed `seed`, and each the next subseed.",
        default=0.0,
        low=0,
        high=1,
        needs=("subseed_strength",),
        infotext="Variation seed strength",
    )

    def __post_init__(self) -> None:
        """Replace what can be said in two ways by the one that is meant."""
        sampler, schedule = resolved(self.sampler, self.schedule)
        object.__setattr__(self, "sampler", sampler)
        object.__setattr__(self, "schedule", schedule)
        if self.clip_skip == 0:
            object.__setattr__(self, "clip_skip", 1)
        for each in fields(self):
            declared: RequestField = each.metadata["asked"]
            if declared.needs and not self._has_any(declared.needs):
                object.__setattr__(self, each.name, declared.default)

    def _has_any(self, names: tuple[str, ...]) -> bool:
        """Whether one of some fields asks for anything; by default each is None or 0."""
        return any(getattr(self, name) for name in names)

    @property
    def used(self) -> dict[str, Any]:
        """The fields that have an effect, as plain values: what earlier versions had, and more."""
        plain = asdict(self)
        unused = {e.name for e in FIELDS if e.needs and not self._has_any(e.needs)}
        return {name: value for name, value in plain.items() if name not in unused}

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed per image: the asked one and those that follow it, modulo 2**32.

        With variations it is the same for all, as AUTOMATIC1111 has it.
        """
        if self.subseed_strength:
            return (self.seed,) * self.num_images
        return _from(self.seed, self.num_images)

    @property
    def subseeds(self) -> tuple[int, ...]:
        """One seed of a variation per image: the asked one and those that follow it."""
        return _from(self.subseed, self.num_images)

    @property
    def masked(self) -> bool:
        """Whether only a part of the image is drawn anew, and put into the rest of it."""
        return self._has_any(MASKED)

    @property
    def first_steps(self) -> int:
        """Denoising steps of the only or the first pass, as diffusers' ``get_timesteps`` counts."""
        return self.steps if self.image is None else int(self.steps * self.strength)

    @property
    def hires_steps(self) -> int:
        """Denoising steps of the second pass; 0 without one."""
        return self.second.first_steps if self.second is not None else 0

    @property
    def second(self) -> "GenerationSpec | None":
        """The second pass as a request from image to image; None without one.

        Its image is the first pass's, which nobody sent.
        """
        if self.hires is None:
            return None
        width, height = self.drawn_size
        return replace(
            self,
            image=InputImage(digest="", width=width, height=height),
            width=width,
            height=height,
            steps=self.hires.steps or self.steps,
            strength=self.hires.strength,
            hires=None,
        )

    @property
    def total_steps(self) -> int:
        """Denoising steps of each image."""
        return self.first_steps + self.hires_steps

    @property
    def drawn_size(self) -> tuple[int, int]:
        """Width and height in pixels of the images that an engine returns."""
        if self.hires is None:
            return self.width, self.height
        return self.hires.size(self.width, self.height)

    @property
    def output_size(self) -> tuple[int, int]:
        """Width and height in pixels of the images that a client gets.

        What was drawn of a part of an image is put back into the whole.
        """
        if self.image is None or not self.masked or self.mask_padding < 0:
            return self.drawn_size
        pad = self.pad or Pad()
        wide = self.image.width + pad.left + pad.right
        return wide, self.image.height + pad.top + pad.bottom

    @property
    def doubts(self) -> tuple[str, ...]:
        """What may be wrong with the images, as far as the request alone tells."""
        hires = self.hires
        if (
            hires is None
            or hires.resize != HiresResize.LATENT
            or hires.strength >= LEAST_OF_LATENTS
        ):
            return ()
        cure = f'set strength to {LEAST_OF_LATENTS:g} or more, or resize to "{HiresResize.LANCZOS}"'
        return (f"hires: enlarged latents stay blurred with this strength: {cure}.",)

    @property
    def largest_pixels(self) -> int:
        """Pixels of the largest image that an engine works on."""
        return max(self.width * self.height, math.prod(self.drawn_size))


def _from(first: int, count: int) -> tuple[int, ...]:
    return tuple((first + i) % 2**32 for i in range(count))


def _kind(hint: Any) -> Any:
    """Return the type of a field without the None of one that can be left out."""
    return get_args(hint)[0] if isinstance(hint, UnionType) else hint


def declared(of: type) -> tuple[RequestField, ...]:
    """Return what a dataclass of request fields declares, with names and types."""
    hints = get_type_hints(of)
    return tuple(
        replace(e.metadata["asked"], name=e.name, kind=_kind(hints[e.name])) for e in fields(of)
    )


FIELDS: Final[tuple[RequestField, ...]] = declared(GenerationSpec)
TEXTS: Final = tuple(each.name for each in FIELDS if each.is_text)
"""Fields that a user wrote: they stay out of logs, traces and headers."""
