"""Names of samplers and noise schedules in AUTOMATIC1111's spellings.

A sampler may come as a pair ("DPM++ 2M" with the scheduler "Karras"), as one name of versions up
to 1.8 ("DPM++ 2M Karras"), as an alias ("k_dpmpp_2m") or by its name in this service; letters in
upper and lower case are the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.core.sampler import Sampler, Schedule
from service.errors import SamplerNotFound

AUTOMATIC: Final = "automatic"

KARRAS: Final = (Sampler.DPMPP_2M, Sampler.DPMPP_SDE, Sampler.DPM2, Sampler.DPM2_A)
EXPONENTIAL: Final = (Sampler.DPMPP_2M_SDE, Sampler.DPMPP_3M_SDE)
OWN: Final = {
    **dict.fromkeys(KARRAS, Schedule.KARRAS),
    **dict.fromkeys(EXPONENTIAL, Schedule.EXPONENTIAL),
}
"""What "Automatic" means for a sampler (modules/sd_samplers_kdiffusion.py); the schedule of the
model for all others."""

LABELS: Final = {
    Schedule.AUTOMATIC: "Automatic",
    Schedule.KARRAS: "Karras",
    Schedule.EXPONENTIAL: "Exponential",
    Schedule.SGM_UNIFORM: "SGM Uniform",
    Schedule.SIMPLE: "Simple",
    Schedule.NORMAL: "Normal",
    Schedule.BETA: "Beta",
    Schedule.ALIGN_YOUR_STEPS: "Align Your Steps",
}
NEEDS_MODEL: Final = (Schedule.SGM_UNIFORM, Schedule.SIMPLE, Schedule.NORMAL, Schedule.BETA)
"""Schedules that AUTOMATIC1111 derives from the timesteps of the model."""

ALIASES: Final[Mapping[Sampler, tuple[str, ...]]] = {
    Sampler.DPM2: ("k_dpm_2",),
    Sampler.DPM2_A: ("k_dpm_2_a", "k_dpm_2_ancestral"),
    Sampler.DPMPP_2M: ("k_dpmpp_2m", "dpm++2m", "dpm++2mv2"),
    Sampler.DPMPP_2M_SDE: ("k_dpmpp_2m_sde",),
    Sampler.DPMPP_3M_SDE: ("k_dpmpp_3m_sde",),
    Sampler.DPMPP_SDE: ("k_dpmpp_sde",),
    Sampler.EULER: ("k_euler",),
    Sampler.EULER_A: ("k_euler_a", "k_euler_ancestral"),
    Sampler.HEUN: ("k_heun",),
    Sampler.LCM: ("k_lcm",),
    Sampler.LMS: ("k_lms",),
    Sampler.PNDM: ("plms",),
    Sampler.UNIPC: ("unipc",),
}
"""Other names of a sampler, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a sampler and a scheduler of AUTOMATIC1111 are here."""

    sampler: str | None
    """None: that of the model."""
    schedule: str | None
    """None: what suits the sampler."""
    warnings: tuple[str, ...] = ()


def meant(sampler: str, scheduler: str) -> Drawn:
    """Return what a client means; both names may be empty.

    Raises:
        SamplerNotFound: there is no sampler of that name.

    """
    schedule, warnings = _schedule(scheduler)
    if not sampler.strip():
        return Drawn(sampler=None, schedule=schedule, warnings=warnings)
    found, joined = _sampler(sampler)
    chosen = schedule or joined or OWN.get(found, Schedule.AUTOMATIC)
    if chosen not in found.schedules:
        if schedule:
            text = f"scheduler: {found.infotext} does not follow {LABELS[schedule]}"
            warnings = (*warnings, f"{text}; Automatic is used.")
        chosen = Schedule.AUTOMATIC
    return Drawn(sampler=found.value, schedule=chosen.value, warnings=warnings)


def _sampler(name: str) -> tuple[Sampler, Schedule | None]:
    low = name.strip().lower()
    if low in SAMPLERS:
        return SAMPLERS[low], None
    for label, schedule in SCHEDULES.items():
        for end in (f" {label}", f"_{_short(schedule)}"):
            if low.endswith(end) and (found := SAMPLERS.get(low.removesuffix(end))):
                return found, schedule
    raise SamplerNotFound


def _short(schedule: Schedule) -> str:
    """Return how an alias ends that has a schedule: ``k_dpmpp_2m_ka``."""
    return {Schedule.KARRAS: "ka", Schedule.EXPONENTIAL: "exp"}.get(schedule, schedule.value)


def _schedule(name: str) -> tuple[Schedule | None, tuple[str, ...]]:
    low = name.strip().lower()
    if low in ("", AUTOMATIC):
        return None, ()
    if low in SCHEDULES:
        return SCHEDULES[low], ()
    return None, (f"scheduler: {name[:64]!r} is not available; Automatic is used.",)


def _spellings() -> Iterator[tuple[str, Sampler]]:
    for sampler in Sampler:
        yield sampler.infotext.lower(), sampler
        yield sampler.value, sampler
        for alias in ALIASES.get(sampler, ()):
            yield alias, sampler


SAMPLERS: Final = dict(_spellings())
"""Spellings of samplers, in lower case."""

SCHEDULES: Final = {
    **{label.lower(): schedule for schedule, label in LABELS.items() if schedule != AUTOMATIC},
    **{each.value: each for each in Schedule if each != Schedule.AUTOMATIC},
    "uniform": Schedule.NORMAL,
    "discrete": Schedule.NORMAL,
    "ays": Schedule.ALIGN_YOUR_STEPS,
}
"""Names and labels of schedules in lower case, two of stable-diffusion.cpp among them."""


def listed_samplers() -> list[dict[str, Any]]:
    """Return what ``/samplers`` lists."""
    return [
        {"name": each.infotext, "aliases": list(ALIASES.get(each, ())), "options": _options(each)}
        for each in Sampler
    ]


def _options(sampler: Sampler) -> dict[str, str]:
    own = OWN.get(sampler)
    return {"scheduler": own.value} if own else {}


def listed_schedulers() -> list[dict[str, Any]]:
    """Return what ``/schedulers`` lists, "Automatic" first."""
    return [
        {
            "name": schedule.value,
            "label": label,
            "aliases": ["uniform"] if schedule is Schedule.NORMAL else None,
            "default_rho": 7.0 if schedule is Schedule.KARRAS else -1.0,
            "need_inner_model": schedule in NEEDS_MODEL,
        }
        for schedule, label in LABELS.items()
    ]
