"""Stages of a generation, the time they take, and what helps when memory runs out in one."""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """What an engine does, in the order it does it; then what the service does."""

    FETCH = "fetch"
    """Download of the model from the hub."""
    LOAD = "load"
    WAKE = "wake"
    """The first work after none."""
    TEXT_ENCODE = "text_encode"
    VAE_ENCODE = "vae_encode"
    """Pixels of an input image become latents."""
    DENOISE = "denoise"
    VAE_DECODE = "vae_decode"
    SAFETY = "safety"
    IMAGE_ENCODE = "image_encode"
    """Finished pixels become a file, in the service."""


class OomRung(StrEnum):
    """What is tried next when memory ran out, the cheapest first."""

    FREE_CACHE = "free_cache"
    SPLIT_BATCH = "split_batch"
    VAE_TILING = "vae_tiling"
    OFFLOAD = "offload"
    FAIL = "fail"
    """Nothing: the job fails."""


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Seconds of GPU time by stage; shared steps are divided among those who shared them."""

    text_encode: float = 0.0
    vae_encode: float = 0.0
    denoise: float = 0.0
    vae_decode: float = 0.0
    safety: float = 0.0

    @property
    def by_stage(self) -> dict[Stage, float]:
        """Seconds by stage, in the order of the stages."""
        return {stage: getattr(self, stage) for stage in LOOP_STAGES}

    @property
    def total(self) -> float:
        """All stages together."""
        return sum(self.by_stage.values())


LOOP_STAGES: Final = tuple(Stage(each.name) for each in fields(StageTimes))
"""Stages of the step loop: those that a job is charged for."""
