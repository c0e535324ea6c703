"""Starts from an image: its latents with as much noise as the strength says."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from service.core.inputs import EngineInputs
from service.diffusion.families.base import Encoded
from service.diffusion.load import Model
from service.diffusion.loop.noise import Noise
from service.diffusion.loop.starts.base import Start
from service.errors import GenerationFailed


@dataclass(frozen=True)
class NoisedStart(Start):
    """Latents of an image, noised to the level of the first of the last steps."""

    @property
    def steps(self) -> int:
        """The share of the steps that the strength leaves."""
        return self.request.first_steps

    def timesteps(self, scheduler: Any) -> torch.Tensor:
        """Return those of the last steps, as ``get_timesteps`` of diffusers' img2img does."""
        # Schedulers of the second order have each level twice.
        skipped = (self.request.steps - self.steps) * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        found: torch.Tensor = scheduler.timesteps[skipped:]
        return found

    @abstractmethod
    def clean(self, model: Model, noise: Noise, encoded: Sequence[Encoded]) -> torch.Tensor:
        """Return the latents of the image on the model's device."""

    def latents(
        self, model: Model, scheduler: Any, noise: Noise, encoded: Sequence[Encoded] = ()
    ) -> torch.Tensor:
        """Return the image's latents with noise, as ``prepare_latents`` of diffusers' img2img."""
        clean = self.clean(model, noise, encoded)
        drawn = noise.first(model.family, self.request.width, self.request.height)
        first = self.timesteps(scheduler)[:1]
        noised: torch.Tensor = scheduler.add_noise(clean, drawn.to(model.device), first)
        return noised


@dataclass(frozen=True)
class ImageStart(NoisedStart):
    """The image of the request, encoded by the VAE."""

    encodes: ClassVar = True

    inputs: EngineInputs

    def images(self) -> tuple[torch.Tensor, ...]:
        """Return the image."""
        return (picture(self.inputs.image, self.request.width, self.request.height),)

    def clean(self, model: Model, noise: Noise, encoded: Sequence[Encoded]) -> torch.Tensor:
        """Return latents drawn from what the VAE found."""
        return model.family.sampled(encoded[0], noise.generator)


@dataclass(frozen=True)
class LatentStart(NoisedStart):
    """Latents that there are already."""

    found: torch.Tensor
    """``[1, channels, height, width]`` in the scale of the denoiser."""

    def clean(self, model: Model, noise: Noise, encoded: Sequence[Encoded]) -> torch.Tensor:
        """Return them."""
        del noise, encoded
        return self.found.to(model.device)


def picture(rows: bytes, width: int, height: int) -> torch.Tensor:
    """Return RGB rows as ``[1, 3, height, width]`` from -1 to 1, rounded as diffusers does.

    Raises:
        GenerationFailed: they are those of another size.

    """
    if len(rows) != width * height * 3:
        raise GenerationFailed(
            f"The engine got {len(rows)} bytes as an input image of {width}x{height}."
        )
    levels = torch.frombuffer(bytearray(rows), dtype=torch.uint8).view(height, width, 3)
    # VaeImageProcessor.pil_to_numpy and normalize.
    return 2.0 * (levels.permute(2, 0, 1)[None].float() / 255.0) - 1.0
