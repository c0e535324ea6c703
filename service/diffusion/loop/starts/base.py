"""The start of a row: its first latents, and how many of the steps it does."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from service.core.spec import GenerationSpec
from service.diffusion.families.base import Encoded
from service.diffusion.load import Model
from service.diffusion.loop.noise import Noise


@dataclass(frozen=True)
class Start(ABC):
    """The start of a request's images, or of one pass of them."""

    encodes: ClassVar[bool] = False
    """Whether it has images that the VAE encodes first."""

    request: GenerationSpec
    """What the pass draws: its size, and all of its steps."""

    @property
    def steps(self) -> int:
        """Steps that are done, the last ones of those asked for."""
        return self.request.steps

    @property
    def pixels(self) -> int:
        """Width times height of the image."""
        return self.request.width * self.request.height

    def images(self) -> tuple[torch.Tensor, ...]:
        """Return the images ``[1, 3, height, width]``, from -1 to 1, that the VAE encodes first."""
        return ()

    def timesteps(self, scheduler: Any) -> torch.Tensor:
        """Return the timesteps of a scheduler that is set to its first step."""
        found: torch.Tensor = scheduler.timesteps
        return found

    @abstractmethod
    def latents(
        self, model: Model, scheduler: Any, noise: Noise, encoded: Sequence[Encoded] = ()
    ) -> torch.Tensor:
        """Return the first latents on the model's device, drawn in the order of ``pipe(...)``.

        ``encoded`` is what the VAE found in ``images``.
        """


class TextStart(Start):
    """Pure noise from the seed, through all steps."""

    def latents(
        self, model: Model, scheduler: Any, noise: Noise, encoded: Sequence[Encoded] = ()
    ) -> torch.Tensor:
        """Return noise in the scale of the sampler."""
        del encoded
        first = noise.first(model.family, self.request.width, self.request.height)
        scaled: torch.Tensor = first.to(model.device) * scheduler.init_noise_sigma
        return scaled
