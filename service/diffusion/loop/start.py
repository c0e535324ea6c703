"""The start of a row: its first latents, and how many of the steps it does."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from service.core.spec import GenerationSpec
from service.diffusion.load import Model


@dataclass(frozen=True)
class Start(ABC):
    """The start of a request's images."""

    request: GenerationSpec

    @property
    def steps(self) -> int:
        """Steps that are done, the last ones of those asked for."""
        return self.request.steps

    @abstractmethod
    def latents(self, model: Model, scheduler: Any, generator: torch.Generator) -> torch.Tensor:
        """Return the first latents on the model's device, drawn in the order of ``pipe(...)``."""


class TextStart(Start):
    """Pure noise from the seed, through all steps."""

    def latents(self, model: Model, scheduler: Any, generator: torch.Generator) -> torch.Tensor:
        """Return noise in the scale of the sampler."""
        noise = model.family.latents(self.request.width, self.request.height, generator)
        first: torch.Tensor = noise.to(model.device) * scheduler.init_noise_sigma
        return first
