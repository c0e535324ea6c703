"""Starts that keep a part of an image, and those of models whose UNet takes a mask, too."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

import torch

from service.core.inputs import MaskFill
from service.diffusion.families.base import Encoded
from service.diffusion.load import Model
from service.diffusion.loop.noise import Noise
from service.diffusion.loop.starts.base import Beginning, Kept, Start
from service.diffusion.loop.starts.image import ImageStart, picture
from service.errors import GenerationFailed

HALF: Final = 128
"""Level of a mask from which on a pixel is repainted, as VaeImageProcessor.binarize has it."""


@dataclass(frozen=True)
class InpaintStart(ImageStart):
    """The image of the request, of which the mask says what is repainted.

    With four channels the rest is put back after each step. With nine the UNet is given the mask
    and the image without the repainted part, and nothing is put back. Both, and the order of the
    random numbers, are as in diffusers' inpainting pipelines.
    """

    nine: bool
    """Whether the UNet of the model takes nine channels."""

    @cached_property
    def _mask(self) -> torch.Tensor:
        """The mask ``[1, 1, height, width]``, 1 where the image is repainted."""
        rows, size = self.inputs.mask, (self.request.width, self.request.height)
        if len(rows) != size[0] * size[1]:
            wanted = f"{size[0]}x{size[1]}"
            raise GenerationFailed(f"The engine got {len(rows)} bytes as a mask of {wanted}.")
        levels = torch.frombuffer(bytearray(rows), dtype=torch.uint8)
        return (levels >= HALF).float().view(1, 1, size[1], size[0])

    def images(self) -> tuple[torch.Tensor, ...]:
        """Return the image, if its latents are needed, and for nine channels its kept part."""
        image = picture(self.inputs.image, self.request.width, self.request.height)
        if not self.nine:
            return (image,)
        kept = image * (1 - self._mask)
        return (kept,) if self._pure else (image, kept)

    @property
    def _pure(self) -> bool:
        """Whether the latents begin with noise alone."""
        return self.request.strength == 1

    def latents(
        self, model: Model, scheduler: Any, noise: Noise, encoded: Sequence[Encoded] = ()
    ) -> torch.Tensor:
        """Return the first latents without the mask."""
        return self.begin(model, scheduler, noise, encoded).latents

    def begin(
        self, model: Model, scheduler: Any, noise: Noise, encoded: Sequence[Encoded] = ()
    ) -> Beginning:
        """Return the noised latents with the mask, as ``prepare_latents`` and what follows it."""
        whole = not (self.nine and self._pure)
        clean = model.family.sampled(encoded[0], noise.generator) if whole else None
        drawn = noise.first(model.family, self.request.width, self.request.height).to(model.device)
        # The nearest of its pixels for each latent.
        mask = torch.nn.functional.interpolate(self._mask, size=drawn.shape[2:]).to(drawn)
        latents = drawn * scheduler.init_noise_sigma
        if clean is not None and not self._pure:
            first = self.timesteps(scheduler)[:1]
            latents = scheduler.add_noise(self._filled(clean, drawn, mask), drawn, first)
        if self.nine:
            rest = model.family.sampled(encoded[-1], noise.generator)
            return Beginning(latents, channels=torch.cat([mask, rest], dim=1))
        # diffusers draws latents of the kept part here, too, and makes no use of them.
        encoded[0].latents(noise.generator)
        return Beginning(latents, kept=None if clean is None else Kept(mask, clean, drawn))

    def _filled(self, clean: torch.Tensor, drawn: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the latents with noise in the place of what is repainted, if it is asked for.

        It is the noise of the seed, as in AUTOMATIC1111's "latent noise".
        """
        if self.request.mask_fill != MaskFill.NOISE:
            return clean
        return clean * (1 - mask) + drawn * mask


@dataclass(frozen=True)
class WholeStart(Start):
    """Another start, for a model whose UNet takes nine channels: all of the image is repainted."""

    encodes: ClassVar = True

    other: Start

    @property
    def steps(self) -> int:
        """Those of the other start."""
        return self.other.steps

    def images(self) -> tuple[torch.Tensor, ...]:
        """Return those of the other start, and grey: no part of an image is kept."""
        grey = torch.zeros(1, 3, self.request.height, self.request.width)
        return (*self.other.images(), grey)

    def timesteps(self, scheduler: Any) -> torch.Tensor:
        """Return those of the other start."""
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)  # As the inpainting pipelines do, whatever is to begin.
        return self.other.timesteps(scheduler)

    def latents(
        self, model: Model, scheduler: Any, noise: Noise, encoded: Sequence[Encoded] = ()
    ) -> torch.Tensor:
        """Return those of the other start."""
        return self.other.latents(model, scheduler, noise, encoded[:-1])

    def begin(
        self, model: Model, scheduler: Any, noise: Noise, encoded: Sequence[Encoded] = ()
    ) -> Beginning:
        """Return the latents of the other start, with a white mask and the latents of grey."""
        latents = self.latents(model, scheduler, noise, encoded)
        grey = model.family.sampled(encoded[-1], noise.generator)
        channels = torch.cat([torch.ones_like(grey[:, :1]), grey], dim=1)
        return Beginning(latents, channels=channels)
