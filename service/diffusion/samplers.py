"""Samplers by name, each built from the numbers of the model's own noise schedule."""

import copy
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import (
    EulerAncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from service.errors import ModelUnsuitable, SamplerUnsuitable

DPMPP_2M: Final[Mapping[str, Any]] = {"algorithm_type": "dpmsolver++", "solver_order": 2}

SAMPLERS: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "ddim": (DDIMScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {**DPMPP_2M, "use_karras_sigmas": False}),
    "dpmpp_2m_karras": (
        DPMSolverMultistepScheduler,
        # A model may come with other sigmas, and no scheduler takes two kinds of them.
        {
            **DPMPP_2M,
            "use_karras_sigmas": True,
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
            "use_lu_lambdas": False,
        },
    ),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "lcm": (LCMScheduler, {}),
    # PLMS, as the picture's text says. With the Runge-Kutta steps, which the class has by
    # default, it fails below four steps; SD's and SDXL's own configurations skip them, too.
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "unipc": (UniPCMultistepScheduler, {}),
}
"""Scheduler class and what it changes in the model's numbers, by sampler name."""

ALL_TRIED: Final = 8
"""Up to so many steps each count is tried out at the start; further ones if they look odd."""


def build(sampler: str, numbers: Mapping[str, Any]) -> Any:
    """Return a scheduler of the model's noise schedule, prediction type and timestep spacing.

    Changes are given as keywords: ``from_config`` drops those of its first argument that the
    configuration lists as another class's defaults.

    Raises:
        KeyError: there is no such sampler.
        Exception: the class cannot follow this schedule.

    """
    scheduler_class, changes = SAMPLERS[sampler]
    if "clip_sample" not in numbers and scheduler_class is DDIMScheduler:
        # It clips to [-1, 1] unless told otherwise. That is for pixels: latents reach further.
        changes = {**changes, "clip_sample": False}
    return scheduler_class.from_config(dict(numbers), **changes)


class Samplers:
    """Fresh schedulers for one model; each picture needs its own, for they keep history."""

    def __init__(
        self, numbers: Mapping[str, Any], *, counts_positions: bool, most_steps: int = 50
    ) -> None:
        """Take the model's numbers, and find out what each sampler can do with them.

        With ``counts_positions`` a scheduler is told where it begins, as SDXL's pipeline does;
        SD's pipeline looks the first timestep up.

        Raises:
            ModelUnsuitable: no sampler can do anything.

        """
        self._numbers = numbers
        self._counts_positions = counts_positions
        self._templates: dict[str, Any] = {}
        self._tried: dict[tuple[str, int], str] = {}
        """Why a sampler cannot take a number of steps; empty for those that can."""
        self.ranges = {sampler: self._ranges(sampler, most_steps) for sampler in SAMPLERS}
        """By sampler the numbers of steps that it can take, as ranges from and to."""
        if not any(self.ranges.values()):
            raise ModelUnsuitable(
                f"no sampler can follow its noise schedule ({self._trial('euler', 1)}). Use a "
                "Stable Diffusion 1.x, 2.x or XL model."
            )

    def new(self, sampler: str, steps: int) -> Any:
        """Return a scheduler that no other picture uses, set to its first step.

        Raises:
            SamplerUnsuitable: with this model it cannot take so many steps.

        """
        if (reason := self._trial(sampler, steps)) != "":
            raise SamplerUnsuitable(
                f"The sampler {sampler} cannot take {steps} steps with this model ({reason}). "
                f"These pairs work: {self._pairs(sampler, steps)}."
            )
        return self._set(sampler, steps)

    def _pairs(self, sampler: str, steps: int) -> str:
        others = [name for name in SAMPLERS if not self._trial(name, steps)]
        own = [f"{a}" if a == b else f"{a}-{b}" for a, b in self.ranges[sampler]]
        found = [f"{sampler} with {', '.join(own)} steps"] if own else []
        found += [f"{steps} steps with {', '.join(others)}"] if others else []
        return "; ".join(found) or "none with so many steps; take fewer"

    def _ranges(self, sampler: str, most_steps: int) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        for steps in range(1, most_steps + 1):
            if self._doubtful(sampler, steps) and self._trial(sampler, steps):
                continue
            first = found.pop()[0] if found and found[-1][1] == steps - 1 else steps
            found.append((first, steps))
        return tuple(found)

    def _set(self, sampler: str, steps: int) -> Any:
        if sampler not in self._templates:
            self._templates[sampler] = build(sampler, self._numbers)
        # A copy takes a fifth of the time of from_config, which checks every key.
        scheduler = copy.deepcopy(self._templates[sampler])
        # Timesteps and sigmas stay on the CPU: as scalars they reach a kernel's arguments
        # without a copy, while a timestep on the GPU costs a synchronisation per lookup.
        scheduler.set_timesteps(steps)
        if self._counts_positions and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        return scheduler

    def _trial(self, sampler: str, steps: int) -> str:
        """Take all steps once with four numbers in place of an image: some milliseconds."""
        if (sampler, steps) not in self._tried:
            try:
                ends_well = _walked(self._set(sampler, steps))
            except Exception as error:  # noqa: BLE001 - they raise six classes, asserts among them
                line = " ".join(str(error).split())
                self._tried[sampler, steps] = line or type(error).__name__
            else:
                self._tried[sampler, steps] = "" if ends_well else "its numbers overflow"
        return self._tried[sampler, steps]

    def _doubtful(self, sampler: str, steps: int) -> bool:
        """Tell whether a number of steps has to be tried, by its timesteps alone."""
        if steps <= ALL_TRIED or self._trial(sampler, ALL_TRIED):
            return True
        try:
            scheduler = self._set(sampler, steps)
        except Exception:  # noqa: BLE001 - the trial will tell why
            return True
        timesteps = scheduler.timesteps.double()
        sigmas = torch.as_tensor(getattr(scheduler, "sigmas", ())).double()
        inside = bool(((timesteps >= 0) & (timesteps < len(scheduler.alphas_cumprod))).all())
        looked_up_once = int((timesteps == timesteps[0]).sum()) == 1
        # Heun's and PNDM's stages repeat what they evaluate.
        repeats = sampler not in {"heun", "pndm"} and len(set(sigmas.tolist())) < len(sigmas)
        return not inside or not looked_up_once or repeats or not bool(sigmas.isfinite().all())


def step_extras(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """Return those of the pipelines' extra arguments that a scheduler's step takes."""
    known = inspect.signature(scheduler.step).parameters
    extras = {"eta": 0.0, "generator": generator}
    return {name: value for name, value in extras.items() if name in known}


def _walked(scheduler: Any) -> bool:
    """Take every step; return whether what comes out are numbers."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.ones(1, 4, 1, 1) * scheduler.init_noise_sigma
    extras = step_extras(scheduler, generator)
    timesteps: Iterable[torch.Tensor] = scheduler.timesteps
    for timestep in timesteps:
        prediction = scheduler.scale_model_input(latents, timestep) * 0.5
        latents = scheduler.step(prediction, timestep, latents, **extras, return_dict=False)[0]
    return bool(latents.isfinite().all())
