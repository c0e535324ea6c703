"""Images in two passes by diffusers alone: text to image, the enlargement, image to image."""

from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from PIL import Image

from service.core.spec import GenerationSpec
from tests.support.parity.references import NoImageError, Reference, demand_numbers


class TwoPasses:
    """Both pipelines around the networks of a reference."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._first = reference.pipeline
        settings: dict[str, Any] = {"requires_safety_checker": False}
        kind: Any = StableDiffusionImg2ImgPipeline
        if hasattr(self._first, "text_encoder_2"):
            kind = StableDiffusionXLImg2ImgPipeline
            zeros = self._first.config.force_zeros_for_empty_prompt
            settings = {"force_zeros_for_empty_prompt": zeros, "add_watermarker": False}
        self._second = kind(**self._first.components, **settings)
        self._second.set_progress_bar_config(disable=True)

    def images(self, request: GenerationSpec) -> list[np.ndarray]:
        """Return the images of a request, 8-bit ``[height, width, 3]``.

        Raises:
            NoImageError: a pipeline raises, or what it returns holds values that are no numbers.

        """
        try:
            found = np.concatenate([self._drawn(request, seed) for seed in request.seeds])
        except Exception as error:
            raise NoImageError(f"{type(error).__name__}: {error}") from error
        demand_numbers(found)
        return [np.asarray(each) for each in self._second.image_processor.numpy_to_pil(found)]

    def rounded_images(self, request: GenerationSpec) -> list[np.ndarray]:
        """Return the images after other rounding, of a unit in the last place, in the UNet."""
        with self._reference.rounded_otherwise():
            return self.images(request)

    def _drawn(self, request: GenerationSpec, seed: int) -> np.ndarray:
        hires = request.hires
        assert hires is not None
        size = hires.size(request.width, request.height)
        steps = hires.steps or request.steps
        self._first.scheduler = self._scheduler(request, request.steps, seed)
        said = self._said(request)
        first = self._first(
            **said,
            width=request.width,
            height=request.height,
            num_inference_steps=request.steps,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="latent" if hires.resize == "latent" else "pil",
        ).images
        if hires.resize == "latent":
            factor = self._first.vae_scale_factor
            cells = (size[1] // factor, size[0] // factor)
            larger: Any = torch.nn.functional.interpolate(
                first, cells, mode="bilinear", antialias=False
            )
        else:
            larger = first[0].resize(size, Image.Resampling.LANCZOS)
        self._second.scheduler = self._scheduler(request, steps, seed)
        drawn: np.ndarray = self._second(
            **said,
            image=larger,
            strength=hires.strength,
            num_inference_steps=steps,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="np",
        ).images
        return drawn

    def _scheduler(self, request: GenerationSpec, steps: int, seed: int) -> Any:
        scheduler = self._reference.scheduler(request.sampler, request.schedule, steps)
        if request.sampler == "dpmpp_sde":
            scheduler.noise_sampler_seed = seed
        return scheduler

    def _said(self, request: GenerationSpec) -> dict[str, Any]:
        return {
            "prompt": request.prompt,
            # No text is no negative prompt, for which SDXL has zeros.
            "negative_prompt": request.negative_prompt or None,
            "guidance_scale": request.guidance_scale,
            "eta": request.eta,
            "clip_skip": request.clip_skip - 1 or None,
        }
