"""Samplers by name, each built from the model's own scheduler configuration."""

import copy
from collections.abc import Mapping
from typing import Any

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

SAMPLERS: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "ddim": (DDIMScheduler, {}),
    "dpmpp_2m": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": False},
    ),
    "dpmpp_2m_karras": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
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
"""Scheduler class and what it changes in the model's configuration, by sampler name."""


def build(sampler: str, model_config: Mapping[str, Any]) -> Any:
    """Return a scheduler of the model's noise schedule, prediction type and timestep spacing.

    Raises:
        KeyError: there is no such sampler.

    """
    scheduler_class, changes = SAMPLERS[sampler]
    # DDIM clips to [-1, 1] unless told otherwise. That is for pixels: latents reach further.
    return scheduler_class.from_config({"clip_sample": False, **model_config, **changes})


class Samplers:
    """Fresh schedulers for one model; each picture needs its own, for they keep history."""

    def __init__(self, model_config: Mapping[str, Any]) -> None:
        self._config = model_config
        self._templates: dict[str, Any] = {}

    def new(self, sampler: str) -> Any:
        """Return a scheduler that no other picture uses."""
        if sampler not in self._templates:
            self._templates[sampler] = build(sampler, self._config)
        # A copy takes a fifth of the time of from_config, which checks every key.
        return copy.deepcopy(self._templates[sampler])
