"""Samplers and noise schedules: their names, what a step costs, and which go together."""

from enum import StrEnum
from typing import Final, Self


class Schedule(StrEnum):
    """The noise levels that a sampler steps through; the value is its name in requests."""

    infotext: str
    """Its name in AUTOMATIC1111's files; empty for the one that goes without saying."""

    def __new__(cls, name: str, infotext: str = "") -> Self:
        """Make the member ``name``."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.infotext = infotext
        return member

    AUTOMATIC = "automatic", ""
    """Those of the model's own scheduler file."""
    NORMAL = "normal", "Normal"
    KARRAS = "karras", "Karras"
    EXPONENTIAL = "exponential", "Exponential"
    SGM_UNIFORM = "sgm_uniform", "SGM Uniform"
    BETA = "beta", "Beta"
    SIMPLE = "simple", "Simple"
    ALIGN_YOUR_STEPS = "align_your_steps", "Align Your Steps"


ANY: Final = tuple(Schedule)
WHOLE: Final = (Schedule.AUTOMATIC, Schedule.NORMAL, Schedule.SGM_UNIFORM)
"""For samplers that count in timesteps of one width, and cannot step from level to level."""
OWN: Final = (Schedule.AUTOMATIC,)
"""For samplers that pick their steps out of those that a model was distilled with."""


class Sampler(StrEnum):
    """A way to remove noise step by step; the value is its name in requests."""

    infotext: str
    """Its name in AUTOMATIC1111's files, which other tools know."""
    evaluations: int
    """UNet evaluations a step."""
    schedules: tuple[Schedule, ...]
    """What it can follow."""
    most_steps: int | None
    """Limit of its own; None for those of the settings alone."""

    def __new__(
        cls,
        name: str,
        infotext: str = "",
        evaluations: int = 1,
        schedules: tuple[Schedule, ...] = ANY,
        most_steps: int | None = None,
    ) -> Self:
        """Make the member ``name``."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.infotext, member.evaluations = infotext, evaluations
        member.schedules, member.most_steps = schedules, most_steps
        return member

    DDIM = "ddim", "DDIM", 1, WHOLE
    DDPM = "ddpm", "DDPM", 1, WHOLE
    DEIS = "deis", "DEIS"
    DPM2 = "dpm2", "DPM2", 2
    DPM2_A = "dpm2_a", "DPM2 a", 2
    DPMPP_2M = "dpmpp_2m", "DPM++ 2M"
    DPMPP_2M_SDE = "dpmpp_2m_sde", "DPM++ 2M SDE"
    DPMPP_2S = "dpmpp_2s", "DPM++ 2S"
    DPMPP_3M_SDE = "dpmpp_3m_sde", "DPM++ 3M SDE"
    DPMPP_SDE = "dpmpp_sde", "DPM++ SDE", 2
    EULER = "euler", "Euler"
    EULER_A = "euler_a", "Euler a"
    HEUN = "heun", "Heun", 2
    LCM = "lcm", "LCM", 1, OWN, 50
    """It picks its steps out of the 50 that it was distilled with."""
    LMS = "lms", "LMS"
    PNDM = "pndm", "PLMS", 1, WHOLE
    TCD = "tcd", "TCD", 1, OWN, 50
    """As LCM."""
    UNIPC = "unipc", "UniPC"


ETA: Final = (Sampler.DDIM, Sampler.TCD)
"""Samplers that take new noise into each step, as much as ``eta`` says."""
ALIASES: Final = {"dpmpp_2m_karras": (Sampler.DPMPP_2M, Schedule.KARRAS)}
"""Names of earlier versions for a sampler together with a schedule."""
SAMPLER_NAMES: Final = tuple(sorted([*Sampler, *ALIASES]))


def fitting(schedule: str, sampler: object) -> str:
    """Return a schedule that was not asked for, if a sampler can follow it; else the model's own.

    An alias has a schedule of its own, and what is no sampler follows none.
    """
    if not isinstance(sampler, str) or sampler not in {*Sampler}:
        return Schedule.AUTOMATIC
    return schedule if schedule in Sampler(sampler).schedules else Schedule.AUTOMATIC


def resolved(sampler: str, schedule: str = Schedule.AUTOMATIC) -> tuple[str, str]:
    """Return what is meant; the schedule of an alias gives way to one that is named."""
    for alias, (meant, its_own) in ALIASES.items():
        if sampler == alias:
            return meant, its_own if schedule == Schedule.AUTOMATIC else schedule
    return sampler, schedule
