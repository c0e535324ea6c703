"""Noise schedules by diffusers' arguments, or by formulas that are written down once more here.

A class without an argument for a schedule gets the levels in the place of Karras's, which it
would work out itself; the two that have no such place get them by hand.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import scipy.stats
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    UniPCMultistepScheduler,
)

ALIGNED: Final = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGNED_XL: Final = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
"""Align Your Steps (research.nvidia.com/labs/toronto-ai/AlignYourSteps): ten steps and the end."""

ARGUMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "normal": {"timestep_spacing": "linspace"},
    "karras": {"timestep_spacing": "linspace", "use_karras_sigmas": True},
    "exponential": {"timestep_spacing": "linspace", "use_exponential_sigmas": True},
    "beta": {"timestep_spacing": "linspace", "use_beta_sigmas": True},
    "sgm_uniform": {"timestep_spacing": "trailing"},
}
"""As in diffusers' own table of AUTOMATIC1111's names."""

OFF: Final = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


def levels(
    schedule: str, alphas: Sequence[float], steps: int, ten: Sequence[float] = ()
) -> list[float]:
    """Return the noise level of each step, by the formula of the schedule."""
    last = len(alphas) - 1
    every = [((1 - alpha) / alpha) ** 0.5 for alpha in alphas]
    low, high = every[0], every[last]
    # Where a step lies between the first, at 0, and the last, at 1.
    places = [step / (steps - 1) if steps > 1 else 0.0 for step in range(steps)]

    def at(timestep: float) -> float:
        below = min(int(timestep), last - 1)
        return float(every[below] + (timestep - below) * (every[below + 1] - every[below]))

    def between(part: float) -> float:
        if not ten:
            raise ValueError(f"{schedule} is not published for this model")
        step, share = int(part), part % 1
        return float(ten[step] ** (1 - share) * ten[step + 1] ** share)

    count, top, bottom = len(every), high ** (1 / 7), low ** (1 / 7)
    formulas: dict[str, Callable[[int, float], float]] = {
        "normal": lambda _, place: at(last * (1 - place)),
        "simple": lambda step, _: every[last - int(step * count / steps)],
        "sgm_uniform": lambda step, _: every[round(count - step * count / steps) - 1],
        "karras": lambda _, place: float((top + place * (bottom - top)) ** 7),
        "exponential": lambda _, place: float(high * (low / high) ** place),
        "beta": lambda _, place: low + scipy.stats.beta.ppf(1 - place, 0.6, 0.6) * (high - low),
        "align_your_steps": lambda step, _: between(10 * step / steps),
    }
    return [formulas[schedule](step, place) for step, place in enumerate(places)]


def follow(
    kind: Any,
    config: Mapping[str, Any],
    keywords: Mapping[str, Any],
    *,
    schedule: str,
    steps: int,
    ten: Sequence[float],
) -> Any:
    """Return a scheduler of a class that follows a schedule, for so many steps."""
    known = inspect.signature(kind.__init__).parameters
    wanted = ARGUMENTS.get(schedule, {})
    off = {**dict.fromkeys(OFF, False), "interpolation_type": "linear"}
    flags = set(wanted) & set(OFF) or set(wanted)
    multistep = kind in {DPMSolverMultistepScheduler, UniPCMultistepScheduler}
    by_argument = bool(flags) and flags <= set(known)
    by_argument &= not (multistep and schedule == "normal")  # It would leave the lowest level out.
    # It repeats the last level to end with, which would be a single step of no length.
    by_argument &= not (steps == 1 and kind is DEISMultistepScheduler)
    if not by_argument:
        wanted = ARGUMENTS["karras"]
    if steps == 1:
        # A linspace of one step is the lowest level; an image begins at the highest.
        wanted = {**wanted, "timestep_spacing": "trailing"}
    changes = {name: value for name, value in {**off, **wanted}.items() if name in known}
    scheduler = kind.from_config(config, **{**keywords, **changes})
    chosen = None
    if not by_argument:
        if "use_karras_sigmas" not in known and kind is not EulerAncestralDiscreteScheduler:
            raise ValueError(f"{kind.__name__} cannot follow {schedule}")
        chosen = levels(schedule, scheduler.alphas_cumprod.tolist(), steps, ten)
        scheduler._convert_to_karras = lambda *_, **__: np.array(chosen)
    _begin_at_the_first(scheduler, chosen)
    return scheduler


def _begin_at_the_first(scheduler: Any, chosen: Sequence[float] | None) -> None:
    """Complete what a pipeline sets: by hand what no argument can, and where steps begin.

    Where two levels lie within the first timestep, SD's pipeline would begin at the second of
    them, and run off the end; XL's begins at the first, as here.
    """
    as_it_is = scheduler.set_timesteps

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        as_it_is(*args, **kwargs)
        every = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
        if chosen is not None and isinstance(scheduler, DEISMultistepScheduler):
            scheduler.sigmas[-1] = every[0]
        if chosen is not None and isinstance(scheduler, EulerAncestralDiscreteScheduler):
            scheduler.sigmas = torch.tensor([*chosen, 0])
            found = np.interp(np.log(chosen), every.log().tolist(), range(len(every)))
            scheduler.timesteps = torch.tensor(found, dtype=torch.float32)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)

    scheduler.set_timesteps = set_timesteps
