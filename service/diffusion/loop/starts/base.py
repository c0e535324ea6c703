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
class Kept:
    """The part of an image that is put back after each step, as diffusers' inpainting does it."""

    mask: torch.Tensor
    """``[1, 1, height, width]``, 1 where the image is repainted."""
    clean: torch.Tensor
    """Latents of the image."""
    noise: torch.Tensor

    def put_back(
        self, latents: torch.Tensor, scheduler: Any = None, following: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the repainted part of latents with the rest of the image.

        The rest has the noise of the ``following`` timestep of a scheduler, which has taken its
        step; without one it has none.
        """
        rest = self.clean
        if following is not None:
            rest = scheduler.add_noise(rest, self.noise, following.reshape(1))
        return (1 - self.mask) * rest + self.mask * latents


@dataclass(frozen=True)
class Beginning:
    """What a row begins with."""

    latents: torch.Tensor
    """``[1, channels, height, width]`` on the model's device, in the scale of the sampler."""
    channels: torch.Tensor | None = None
    """What the denoiser takes behind the latents at every step."""
    kept: Kept | None = None


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

    def begin(
        self, model: Model, scheduler: Any, noise: Noise, encoded: Sequence[Encoded] = ()
    ) -> Beginning:
        """Return the first latents, with what the row needs besides."""
        return Beginning(self.latents(model, scheduler, noise, encoded))


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
