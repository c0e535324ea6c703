"""Noise schedules: the arguments that make a diffusers class follow one, or levels of our own.

A noise level is sigma = sqrt((1 - a) / a), where a is the model's cumulative product of alphas.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from diffusers.schedulers.scheduling_deis_multistep import DEISMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from service.core.sampler import Schedule

Levels: TypeAlias = Callable[[np.ndarray, int], np.ndarray]
"""From the levels of all timesteps of a model, the lowest first, and a number of steps: the level
of each step, the highest first, without the end."""

FLAGS: Final = {
    **dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), False),
    **dict.fromkeys(("use_lu_lambdas", "use_flow_sigmas"), False),
    "interpolation_type": "linear",
}
"""Arguments of which a model's file may have another; no class takes two schedules."""

LINSPACE: Final = {"timestep_spacing": "linspace"}
TRAILING: Final = {"timestep_spacing": "trailing"}
ARGUMENTS: Final[Mapping[Schedule, Mapping[str, Any]]] = {
    Schedule.NORMAL: LINSPACE,
    Schedule.KARRAS: {**LINSPACE, "use_karras_sigmas": True},
    Schedule.EXPONENTIAL: {**LINSPACE, "use_exponential_sigmas": True},
    Schedule.BETA: {**LINSPACE, "use_beta_sigmas": True},
    Schedule.SGM_UNIFORM: TRAILING,
}
"""What makes a class follow a schedule, if it knows the argument that is not the spacing."""

ENDS_EARLY: Final = (DPMSolverMultistepScheduler, UniPCMultistepScheduler)
"""Their ``linspace`` leaves the lowest level out, and so is not ``normal``."""

RHO: Final = 7.0
"""Karras et al., arXiv:2206.00364, equation 5."""
ALPHA: Final = 0.6
"""Both parameters of the beta distribution, arXiv:2407.12173."""


def followed(
    kind: Any, schedule: str, steps: int, ten: tuple[float, ...]
) -> tuple[Any, Mapping[str, Any]]:
    """Return the class that follows a schedule, and what it changes in the model's numbers.

    ``ten`` are the model's own levels for ``align_your_steps``.
    """
    if schedule == Schedule.AUTOMATIC:
        return kind, {}
    known = inspect.signature(kind.__init__).parameters
    wanted = ARGUMENTS.get(Schedule(schedule), {})
    needed = wanted.keys() - LINSPACE.keys() or wanted.keys()
    own = schedule == Schedule.NORMAL and kind in ENDS_EARLY
    # It repeats the last level to end with, which would be a single step of no length.
    own |= steps == 1 and kind is DEISMultistepScheduler
    changes: dict[str, Any] = {**FLAGS, **wanted}
    if own or not needed or not needed <= known.keys():
        kind = _following(kind, Schedule(schedule), ten)
        changes = {**FLAGS, **ARGUMENTS[Schedule.KARRAS]}
    elif steps == 1 and wanted["timestep_spacing"] == "linspace":
        # A linspace of one is its lowest end, and an image begins at the highest level.
        changes |= TRAILING
    return kind, {name: value for name, value in changes.items() if name in known}


@cache
def quick(kind: Any) -> Any:
    """Return a class that sets no thousand steps when it is made, if its constructor does.

    That takes those of the second order a second.
    """
    if kind.order == 1 and not issubclass(kind, LMSDiscreteScheduler):
        return kind

    class Quick(kind):  # type: ignore[misc] # which class it is, is found out when it runs
        def set_timesteps(self, num_inference_steps: int, *args: Any, **kwargs: Any) -> None:
            making = "_step_index" not in vars(self)
            super().set_timesteps(1 if making else num_inference_steps, *args, **kwargs)

    return Quick


@cache
def _following(kind: Any, schedule: Schedule, ten: tuple[float, ...]) -> Any:
    """Return a class that has levels of ours in the place of Karras's."""
    aligns = schedule == Schedule.ALIGN_YOUR_STEPS
    levels: Levels = partial(_aligned, np.log(ten)) if aligns else OWN[schedule]

    class Following(kind):  # type: ignore[misc] # which class it is, is found out when it runs
        def _convert_to_karras(
            self, in_sigmas: np.ndarray, num_inference_steps: int | None = None
        ) -> np.ndarray:
            del in_sigmas  # Those of the steps in some classes, of all timesteps in others.
            return levels(_of_all(self), num_inference_steps or self.num_inference_steps)

        def set_timesteps(self, num_inference_steps: int, *args: Any, **kwargs: Any) -> None:
            super().set_timesteps(num_inference_steps, *args, **kwargs)
            if kind is DEISMultistepScheduler:
                # It cannot step to nothing; for Karras it ends by repeating the last level.
                self.sigmas[-1] = float(_of_all(self)[0])  # type: ignore[has-type]
            elif kind is EulerAncestralDiscreteScheduler:
                chosen, every = levels(_of_all(self), num_inference_steps), _of_all(self)
                self.sigmas = torch.tensor([*chosen, 0.0], dtype=torch.float32)
                found = np.interp(np.log(chosen), np.log(every), np.arange(len(every)))
                self.timesteps = torch.tensor(found, dtype=torch.float32)

    return Following


def _of_all(scheduler: Any) -> np.ndarray:
    alphas: np.ndarray = scheduler.alphas_cumprod.double().numpy()
    found: np.ndarray = np.sqrt((1 - alphas) / alphas)
    return found


def _at(every: np.ndarray, timesteps: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.interp(timesteps, np.arange(len(every)), every)
    return found


def _normal(every: np.ndarray, steps: int) -> np.ndarray:
    return _at(every, np.linspace(len(every) - 1, 0, steps))


def _sgm_uniform(every: np.ndarray, steps: int) -> np.ndarray:
    return _at(every, np.round(len(every) - np.arange(steps) * len(every) / steps) - 1)


def _simple(every: np.ndarray, steps: int) -> np.ndarray:
    return _at(every, len(every) - 1 - np.floor(np.arange(steps) * len(every) / steps))


def _karras(every: np.ndarray, steps: int) -> np.ndarray:
    ends = every[[-1, 0]] ** (1 / RHO)
    found: np.ndarray = np.linspace(ends[0], ends[1], steps) ** RHO
    return found


def _exponential(every: np.ndarray, steps: int) -> np.ndarray:
    return np.geomspace(every[-1], every[0], steps)


def _beta(every: np.ndarray, steps: int) -> np.ndarray:
    from scipy.stats import beta  # noqa: PLC0415 - half a second, and few ask for it

    shares = beta.ppf(np.linspace(1, 0, steps), ALPHA, ALPHA)
    found: np.ndarray = every[0] + shares * (every[-1] - every[0])
    return found


def _aligned(log_ten: np.ndarray, every: np.ndarray, steps: int) -> np.ndarray:
    del every
    places = np.linspace(0, len(log_ten) - 1, steps + 1)
    found: np.ndarray = np.exp(np.interp(places, np.arange(len(log_ten)), log_ten))[:-1]
    return found


OWN: Final[Mapping[Schedule, Levels]] = {
    Schedule.NORMAL: _normal,
    Schedule.SGM_UNIFORM: _sgm_uniform,
    Schedule.SIMPLE: _simple,
    Schedule.KARRAS: _karras,
    Schedule.EXPONENTIAL: _exponential,
    Schedule.BETA: _beta,
}
"""Formula of each schedule for a class that has no argument for it."""
