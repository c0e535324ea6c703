"""Samplers by name, each built from the numbers of the model's own noise schedule."""

import copy
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_deis_multistep import DEISMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_sde import (
    BrownianTreeNoiseSampler,
    DPMSolverSDEScheduler,
)
from diffusers.schedulers.scheduling_dpmsolver_singlestep import DPMSolverSinglestepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete import (
    KDPM2AncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_tcd import TCDScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from service.core.sampler import Sampler, Schedule
from service.diffusion.loop import schedules
from service.errors import ModelUnsuitable, SamplerUnsuitable

SECOND: Final[Mapping[str, Any]] = {"algorithm_type": "dpmsolver++", "solver_order": 2}
STOCHASTIC: Final[Mapping[str, Any]] = {"algorithm_type": "sde-dpmsolver++"}

SCHEDULERS: Final[Mapping[Sampler, tuple[Any, Mapping[str, Any]]]] = {
    Sampler.DDIM: (DDIMScheduler, {}),
    Sampler.DDPM: (DDPMScheduler, {}),
    Sampler.DEIS: (DEISMultistepScheduler, {}),
    Sampler.DPM2: (KDPM2DiscreteScheduler, {}),
    Sampler.DPM2_A: (KDPM2AncestralDiscreteScheduler, {}),
    Sampler.DPMPP_2M: (DPMSolverMultistepScheduler, {**SECOND, "use_karras_sigmas": False}),
    Sampler.DPMPP_2M_SDE: (DPMSolverMultistepScheduler, {**STOCHASTIC, "solver_order": 2}),
    Sampler.DPMPP_2S: (DPMSolverSinglestepScheduler, SECOND),
    Sampler.DPMPP_3M_SDE: (DPMSolverMultistepScheduler, {**STOCHASTIC, "solver_order": 3}),
    Sampler.DPMPP_SDE: (DPMSolverSDEScheduler, {}),
    Sampler.EULER: (EulerDiscreteScheduler, {}),
    Sampler.EULER_A: (EulerAncestralDiscreteScheduler, {}),
    Sampler.HEUN: (HeunDiscreteScheduler, {}),
    Sampler.LCM: (LCMScheduler, {}),
    Sampler.LMS: (LMSDiscreteScheduler, {}),
    # PLMS, as the image's text says. With the Runge-Kutta steps, which the class has by
    # default, it fails below four steps; SD's and SDXL's own configurations skip them, too.
    Sampler.PNDM: (PNDMScheduler, {"skip_prk_steps": True}),
    Sampler.TCD: (TCDScheduler, {}),
    Sampler.UNIPC: (UniPCMultistepScheduler, {}),
}
"""Scheduler class and what it changes in the model's numbers."""

LIKE: Final[Mapping[str, Sampler]] = {
    **dict.fromkeys((Sampler.DPM2, Sampler.DPM2_A, Sampler.DPMPP_SDE, Sampler.LMS), Sampler.HEUN),
    **dict.fromkeys((Sampler.DPMPP_2M_SDE, Sampler.DPMPP_3M_SDE), Sampler.DPMPP_2M),
}
"""Samplers with the levels of another, which works them out as fast or ten times as fast."""

TRIED: Final = (1, 2, 3, 8)
"""Numbers of steps that are tried out at the start; others are if their levels look odd.

The first ones, because a sampler of a higher order takes them differently, and one that has all of
its parts.
"""


PLAIN: Final[Mapping[str, Any]] = {
    **schedules.FLAGS,
    "rescale_betas_zero_snr": False,
    "timestep_type": "discrete",
    **dict.fromkeys(("sigma_min", "sigma_max")),
}
"""Numbers of a noise schedule whose levels are those of timesteps at even distances."""

GENTLE: Final = ("linear", "scaled_linear")
"""Noise schedules that end with some of the signal left. With the others each number up to the
last of ``TRIED`` is tried: ancestral Euler overflows with four steps of a cosine, not with five.
"""

APART: Final = 10
"""Timesteps between two steps from which on rounding cannot make them one, or let one fall out."""


def build(
    sampler: str,
    numbers: Mapping[str, Any],
    schedule: str = Schedule.AUTOMATIC,
    *,
    steps: int = TRIED[-1],
    ten: tuple[float, ...] = (),
) -> Any:
    """Return a scheduler of the model's noise schedule, prediction type and timestep spacing.

    Changes are given as keywords: ``from_config`` drops those of its first argument that the
    configuration lists as another class's defaults. For a single step some are others than for
    more; ``ten`` are the model's levels of ``align_your_steps``.

    Raises:
        KeyError: there is no such sampler.
        Exception: the class cannot follow this schedule.

    """
    scheduler_class, changes = SCHEDULERS[Sampler(sampler)]
    scheduler_class, more = schedules.followed(scheduler_class, schedule, steps, ten)
    changes = {**changes, **more}
    if "clip_sample" not in numbers and sampler in {Sampler.DDIM, Sampler.DDPM}:
        # They clip to [-1, 1] unless told otherwise. That is for pixels: latents reach further.
        changes["clip_sample"] = False
    return schedules.quick(scheduler_class).from_config(dict(numbers), **changes)


class Samplers:
    """Fresh schedulers for one model; each image needs its own, for they keep history."""

    def __init__(
        self,
        numbers: Mapping[str, Any],
        *,
        counts_positions: bool,
        most_steps: int = 50,
        ten: tuple[float, ...] = (),
    ) -> None:
        """Take the model's numbers, and find out what each sampler can do with them.

        With ``counts_positions`` a scheduler is told where it begins, as SDXL's pipeline does;
        SD's pipeline looks the first timestep up. ``ten`` are the model's levels of
        ``align_your_steps``; empty where none were published.

        Raises:
            ModelUnsuitable: no sampler can do anything.

        """
        self._numbers = numbers
        self._counts_positions = counts_positions
        self._ten = ten
        self._templates: dict[tuple[str, str, bool], Any] = {}
        self._tried: dict[tuple[str, str, int], str] = {}
        """Why a pair cannot take a number of steps; empty for those that can."""
        self._looked_at: dict[Sampler, Any] = {}
        """Schedulers that are set to one number of steps after the other, and take none."""
        self._odd: dict[tuple[str, int], bool] = {}
        self._most, self._even = most_steps, _levels_apart(numbers, most_steps)
        gentle = numbers.get("beta_schedule", "linear") in GENTLE
        self._few = frozenset(TRIED if gentle else range(1, TRIED[-1] + 1))
        self.schedules = tuple(
            each for each in Schedule if ten or each != Schedule.ALIGN_YOUR_STEPS
        )
        """Those that some sampler can follow with this model."""
        self.ranges: dict[Sampler, tuple[tuple[int, int], ...]] = {
            sampler: self._ranges(sampler, most_steps) for sampler in Sampler
        }
        """By sampler the numbers of steps that it can take, as ranges from and to, with the
        model's own schedule. Others are tried when the first request asks for them."""
        # DDPM alone knows some schedules of other models, and few requests name it.
        if not any(found for sampler, found in self.ranges.items() if sampler != Sampler.DDPM):
            raise ModelUnsuitable(
                f"no sampler can follow its noise schedule ({self._trial(Sampler.EULER, 1)}). "
                "Use a Stable Diffusion 1.x, 2.x or XL model."
            )

    def new(
        self,
        sampler: str,
        steps: int,
        schedule: str = Schedule.AUTOMATIC,
        *,
        eta: float = 0.0,
    ) -> Any:
        """Return a scheduler that no other image uses, set to its first step.

        Raises:
            SamplerUnsuitable: with this model it cannot take so many steps, or so much new noise,
                or not in this schedule.

        """
        if (reason := self._trial(sampler, steps, schedule)) != "":
            followed = "" if schedule == Schedule.AUTOMATIC else f" in the schedule {schedule}"
            raise SamplerUnsuitable(
                f"The sampler {sampler} cannot take {steps} steps{followed} with this model "
                f"({reason}). These pairs work: {self._pairs(sampler, steps, schedule)}."
            )
        if eta and not _walked(self._set(sampler, steps, schedule), eta=eta):
            raise SamplerUnsuitable(
                f"With this model the numbers of the sampler {sampler} overflow with an eta of "
                f"{eta:g}. Lower eta."
            )
        return self._set(sampler, steps, schedule)

    def _pairs(self, sampler: str, steps: int, schedule: str) -> str:
        others = [name for name in Sampler if not self._trial(name, steps, schedule)]
        if schedule != Schedule.AUTOMATIC:
            of_its = [name for name in Schedule if not self._trial(sampler, steps, name)]
            found = [f"{sampler} with {', '.join(of_its)}"] if of_its else []
            found += [f"{schedule} with {', '.join(others)}"] if others else []
            return "; ".join(found) or "none with so many steps; take fewer"
        own = [f"{a}" if a == b else f"{a}-{b}" for a, b in self.ranges[Sampler(sampler)]]
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

    def _set(self, sampler: str, steps: int, schedule: str) -> Any:
        scheduler = self._copy(sampler, steps, schedule)
        # Timesteps and sigmas stay on the CPU: as scalars they reach a kernel's arguments
        # without a copy, while a timestep on the GPU costs a synchronisation per lookup.
        scheduler.set_timesteps(steps)
        # Some schedules have their first levels within one timestep. A pipeline that looks it up
        # begins at the second of them, and runs off the end.
        counts = self._counts_positions or schedule != Schedule.AUTOMATIC
        if counts and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        return scheduler

    def _copy(self, sampler: str, steps: int, schedule: str) -> Any:
        key = sampler, schedule, steps == 1 and schedule != Schedule.AUTOMATIC
        if key not in self._templates:
            self._templates[key] = build(
                sampler, self._numbers, schedule, steps=steps, ten=self._ten
            )
        # A copy takes a fifth of the time of from_config, which checks every key.
        return copy.deepcopy(self._templates[key])

    def _trial(self, sampler: str, steps: int, schedule: str = Schedule.AUTOMATIC) -> str:
        """Take all steps once with four numbers in place of an image: some milliseconds."""
        key = sampler, schedule, steps
        if key not in self._tried:
            self._tried[key] = self._failure(sampler, steps, schedule)
        return self._tried[key]

    def _failure(self, sampler: str, steps: int, schedule: str) -> str:
        if schedule not in Sampler(sampler).schedules:
            return "it cannot follow this schedule"
        if schedule not in self.schedules:
            return "none is published for it"
        try:
            ends_well = _walked(self._set(sampler, steps, schedule))
        except Exception as error:  # noqa: BLE001 - they raise six classes, asserts among them
            return " ".join(str(error).split()) or type(error).__name__
        return "" if ends_well else "its numbers overflow"

    def _doubtful(self, sampler: str, steps: int) -> bool:
        """Tell whether a number of steps has to be tried, by its timesteps alone."""
        if steps in self._few or self._trial(sampler, TRIED[-1]):
            return True
        if self._even and steps < self._most and Sampler(sampler).most_steps is None:
            return False  # They are further apart than with the most.
        key = LIKE.get(sampler, Sampler(sampler)), steps
        if key not in self._odd:
            self._odd[key] = self._looks_odd(*key)
        return self._odd[key]

    def _looks_odd(self, sampler: Sampler, steps: int) -> bool:
        try:
            if sampler not in self._looked_at:
                self._looked_at[sampler] = self._copy(sampler, steps, Schedule.AUTOMATIC)
            scheduler = self._looked_at[sampler]
            scheduler.set_timesteps(steps)
        except Exception:  # noqa: BLE001 - the trial will tell why
            return True
        timesteps = scheduler.timesteps.double()
        sigmas = torch.as_tensor(getattr(scheduler, "sigmas", ())).double()
        inside = bool(((timesteps >= 0) & (timesteps < len(scheduler.alphas_cumprod))).all())
        looked_up_once = int((timesteps == timesteps[0]).sum()) == 1
        # Schedulers of the second order have each level twice.
        levels = sigmas[:: scheduler.order].tolist()
        repeats = len(set(levels)) < len(levels)
        return not inside or not looked_up_once or repeats or not bool(sigmas.isfinite().all())


def _levels_apart(numbers: Mapping[str, Any], most_steps: int) -> bool:
    """Tell whether so many steps, and all fewer ones, have levels well apart with every class.

    Timesteps at even distances, of which rounding moves none out of the model's or onto another,
    and noise that grows from each to the next, up to a finite one.
    """
    if any(numbers.get(name, usual) != usual for name, usual in PLAIN.items()):
        return False
    try:
        alphas = build(Sampler.DDIM, numbers).alphas_cumprod.double()
        apart = len(alphas) // most_steps
        falls = bool((alphas.diff() < 0).all() and alphas[-1] > 0 and alphas[0] < 1)
        return falls and apart >= APART and 0 <= numbers.get("steps_offset", 0) < apart
    except Exception:  # noqa: BLE001 - they raise as many classes as there are mistakes
        return False


def step_extras(scheduler: Any, generator: torch.Generator, *, eta: float = 0.0) -> dict[str, Any]:
    """Return those of the pipelines' extra arguments that a scheduler's step takes."""
    known = inspect.signature(scheduler.step).parameters
    extras = {"eta": eta, "generator": generator}
    return {name: value for name, value in extras.items() if name in known}


def seed_noise(scheduler: Any, latents: torch.Tensor, seed: int) -> None:
    """Give a scheduler that draws its noise from a Brownian tree one of the seed's own.

    It grows on the CPU, as all noise here, for one image: whatever computes next to it, and on
    whatever device, the seed gives the same.
    """
    if isinstance(scheduler, DPMSolverSDEScheduler):
        scheduler.noise_sampler = _Brownian(scheduler.sigmas, latents, seed)


class _Brownian:
    """The noise between two levels, as diffusers draws it for ``noise_sampler_seed``."""

    def __init__(self, sigmas: torch.Tensor, latents: torch.Tensor, seed: int) -> None:
        low, high = sigmas[sigmas > 0].min().item(), sigmas.max().item()
        # As the tree itself rounds them: it warns about what it is asked outside of them.
        self._low, self._high = round(low, 6), round(high, 6)
        start = torch.zeros(latents.shape, dtype=torch.float32)
        self._tree = BrownianTreeNoiseSampler(start, low, high, seed)
        self._device = latents.device

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        ends = (each.double().clamp(self._low, self._high) for each in (sigma, sigma_next))
        noise: torch.Tensor = self._tree(*ends)
        return noise.to(self._device)


def _walked(scheduler: Any, *, eta: float = 0.0) -> bool:
    """Take every step; return whether what comes out are numbers."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.ones(1, 4, 1, 1) * scheduler.init_noise_sigma
    if isinstance(scheduler, DPMSolverSDEScheduler):
        scheduler.noise_sampler = lambda *_: 0.5  # A tree takes milliseconds to grow.
    extras = step_extras(scheduler, generator, eta=eta)
    timesteps: Iterable[torch.Tensor] = scheduler.timesteps
    for timestep in timesteps:
        prediction = scheduler.scale_model_input(latents, timestep) * 0.5
        latents = scheduler.step(prediction, timestep, latents, **extras, return_dict=False)[0]
    return bool(latents.isfinite().all())
