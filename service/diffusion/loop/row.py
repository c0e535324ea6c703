"""A row: one image on its way from noise to pixels, with a clock of its own."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from service.diffusion.conditioning.encoding import Conditioning
from service.diffusion.families.base import Encoded
from service.diffusion.load import Model
from service.diffusion.loop.guidance import rescaled
from service.diffusion.loop.noise import Noise
from service.diffusion.loop.samplers import seed_noise, step_extras
from service.diffusion.loop.starts.base import Start


class Row:
    """State of one image: latents, scheduler and its history, position, noise generator.

    Noise comes from a CPU generator and everything is done in the order in which
    ``pipe(...)`` does it, so a seed gives the image that diffusers gives. ``scheduler`` is set
    to its first step, and no other image's; ``encoded`` is what the VAE found in the images of
    the start.
    """

    def __init__(
        self,
        model: Model,
        scheduler: Any,
        start: Start,
        seed: int,
        conditioning: Conditioning,
        *,
        encoded: Sequence[Encoded] = (),
        subseed: int = 0,
    ) -> None:
        self.request = start.request
        self.seed = seed
        self._start = start
        self._conditioning = conditioning
        self.position = 0
        self._scheduler = scheduler
        noise = Noise(seed, subseed=subseed, strength=start.request.subseed_strength)
        self._timesteps: torch.Tensor = start.timesteps(scheduler)
        self._latest: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        """Latents, timestep and prediction of the latest step, for ``estimate``."""
        self._step_extras = step_extras(scheduler, noise.generator, eta=start.request.eta)
        begun = start.begin(model, scheduler, noise, encoded)
        self.latents = begun.latents
        self._channels, self._kept = begun.channels, begun.kept
        seed_noise(scheduler, self.latents, seed)

    @property
    def pixels(self) -> int:
        """Width times height of the image."""
        return self._start.pixels

    @property
    def timestep(self) -> torch.Tensor:
        """The timestep of the next step, a scalar on the CPU."""
        return self._timesteps[self.position]

    @property
    def evaluations_left(self) -> int:
        """UNet evaluations still to do; Heun and PNDM take more than the steps asked for."""
        return len(self._timesteps) - self.position

    @property
    def steps_done(self) -> int:
        """Progress in the steps of the start."""
        return self.position * self._start.steps // len(self._timesteps)

    @property
    def guided(self) -> bool:
        """Whether it takes a row for the negative prompt too."""
        return len(self._conditioning.texts) > 1

    @property
    def conditioning(self) -> Conditioning:
        """What guides the next step."""
        return self._conditioning.at(self.steps_done)

    def model_input(self) -> torch.Tensor:
        """Return the latents as the denoiser takes them at this timestep."""
        scaled: torch.Tensor = self._scheduler.scale_model_input(self.latents, self.timestep)
        return scaled if self._channels is None else torch.cat([scaled, self._channels], dim=1)

    def advance(self, prediction: torch.Tensor) -> int:
        """Take one scheduler step and return the new position.

        ``prediction`` is ``[texts, channels, height, width]``, the negative prompt's first.

        Classifier-free guidance: Ho and Salimans, arXiv:2207.12598, as diffusers writes it; of
        several prompts: Liu et al., Composable Diffusion, arXiv:2206.01714, eq. 11.
        """
        if self.guided:
            prediction = self._guided(*torch.split(prediction, 1))
        self._latest = self.latents, self.timestep, prediction
        dtype = self.latents.dtype
        self.latents = self._scheduler.step(
            prediction, self.timestep, self.latents, **self._step_extras, return_dict=False
        )[0].to(dtype)
        self.position += 1
        if self._kept is not None:
            following = self.timestep if self.evaluations_left else None
            self.latents = self._kept.put_back(self.latents, self._scheduler, following)
        return self.position

    def _guided(self, negative: torch.Tensor, *prompts: torch.Tensor) -> torch.Tensor:
        scale, positive = self.request.guidance_scale, prompts[0]
        change = positive - negative
        if len(prompts) > 1:
            weighed = zip(self._conditioning.weights, prompts, strict=True)
            change = torch.stack([weight * (each - negative) for weight, each in weighed]).sum(0)
            positive = negative + change
            # Up to a scale of 1 there is no guidance, which is what a scale of 1 means.
            scale = max(scale, 1.0)
        return rescaled(negative + scale * change, positive, self.request.guidance_rescale)

    def estimate(self) -> torch.Tensor:
        """Return the latents that the latest prediction is on the way to; changes nothing.

        The formulas are in ``preview``; samplers that count in sigmas hold latents of variance
        1 + sigma^2 = 1 / alpha, the others of variance one.
        """
        if self._latest is None:
            return self.latents
        latents, timestep, prediction = self._latest
        alpha = self._alpha(float(timestep))
        signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
        if float(self._scheduler.init_noise_sigma) > 1:
            latents = latents * signal
        clean: torch.Tensor = (latents - prediction * noise) / signal
        if self._scheduler.config.prediction_type == "v_prediction":
            clean = latents * signal - prediction * noise
        elif self._scheduler.config.prediction_type == "sample":
            clean = prediction
        return clean if self._kept is None else self._kept.put_back(clean)

    def _alpha(self, timestep: float) -> float:
        """Return the schedule's share of signal; between two timesteps what lies between."""
        alphas = self._scheduler.alphas_cumprod
        below = min(max(int(timestep), 0), len(alphas) - 1)
        above = min(below + 1, len(alphas) - 1)
        part = timestep - below
        # A schedule that ends in pure noise has 0 there, which nothing can be divided by.
        return max(float(alphas[below]) * (1 - part) + float(alphas[above]) * part, 1e-4)
