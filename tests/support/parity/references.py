"""Images by diffusers alone, which every parity check is measured with.

Nothing here comes from the code under test: the pipeline is read from its folder once more, and
the samplers are a table of this file's own. Overrides are passed as keywords: ``from_config``
drops values of the mapping whose keys the model's scheduler file does not name.
"""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import diffusers.utils.logging
import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image

from service.core.spec import GenerationSpec
from tests.support.parity import gallery, schedules

SAMPLERS: Final[Mapping[str, tuple[Any, Mapping[str, Any]]]] = {
    # DDIM clips its estimate to [-1, 1] by default, which is for pixels: latents reach further.
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
    "deis": (DEISMultistepScheduler, {}),
    "dpm2": (KDPM2DiscreteScheduler, {}),
    "dpm2_a": (KDPM2AncestralDiscreteScheduler, {}),
    "dpmpp_2m": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": False},
    ),
    "dpmpp_2m_sde": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
    ),
    "dpmpp_2s": (
        DPMSolverSinglestepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    "dpmpp_3m_sde": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
    ),
    "dpmpp_sde": (DPMSolverSDEScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "lcm": (LCMScheduler, {}),
    "lms": (LMSDiscreteScheduler, {}),
    # PLMS: without the Runge-Kutta steps that the class begins with by default.
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "tcd": (TCDScheduler, {}),
    "unipc": (UniPCMultistepScheduler, {}),
}
"""Scheduler class and keywords, by sampler name."""

PUBLISHED_FOR: Final = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
}
"""The schedules that Align Your Steps has steps for: those of Stable Diffusion 1.5 and XL."""

NINE: Final = 9
"""Channels that the UNet of an inpainting model takes."""

KINDS: Final[dict[tuple[bool, bool], Any]] = {
    (False, False): StableDiffusionImg2ImgPipeline,
    (False, True): StableDiffusionInpaintPipeline,
    (True, False): StableDiffusionXLImg2ImgPipeline,
    (True, True): StableDiffusionXLInpaintPipeline,
}
"""Pipeline by whether the model is XL, and whether there is a mask."""

EPSILON: Final = torch.finfo(torch.float32).eps
"""Distance of 1 from the next number."""


class NoImageError(Exception):
    """diffusers makes no image of this request."""


class Reference:
    """A diffusers pipeline of a model's folder, of its own."""

    def __init__(self, folder: Path, *, variant: str | None = None) -> None:
        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        pipeline_class: Any = StableDiffusionXLPipeline
        settings: dict[str, Any] = {"add_watermarker": False}
        if "XL" not in index["_class_name"]:
            pipeline_class = StableDiffusionPipeline
            settings = {
                "safety_checker": None,
                "feature_extractor": None,
                "requires_safety_checker": False,
            }
        self.pipeline: Any = pipeline_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            variant=variant,
            **settings,
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.folder = folder
        self._settings = settings
        self.config: Mapping[str, Any] = self.pipeline.scheduler.config
        """The model's own schedule, as the pipeline has read and corrected it."""

    def scheduler(self, sampler: str, schedule: str = "automatic", steps: int = 8) -> Any:
        """Return a scheduler as the documentation of diffusers exchanges it."""
        scheduler_class, keywords = SAMPLERS[sampler]
        if schedule == "automatic":
            return scheduler_class.from_config(self.config, **keywords)
        return schedules.follow(
            scheduler_class,
            self.config,
            keywords,
            schedule=schedule,
            steps=steps,
            ten=self._aligned(),
        )

    def _aligned(self) -> Sequence[float]:
        """Return the ten steps that were published for this model and their end, or nothing."""
        if {name: self.config[name] for name in PUBLISHED_FOR} != PUBLISHED_FOR:
            return ()
        if isinstance(self.pipeline, StableDiffusionXLPipeline):
            return schedules.ALIGNED_XL
        second = self.pipeline.unet.config.use_linear_projection
        return () if second else schedules.ALIGNED

    def rounded_images(self, request: GenerationSpec) -> list[np.ndarray]:
        """Return the images after other rounding, of a unit in the last place, in the UNet."""
        with self.rounded_otherwise():
            return self.images(request)

    @contextmanager
    def rounded_otherwise(self) -> Iterator[None]:
        """Let the UNet round otherwise."""
        handle = self.pipeline.unet.register_forward_hook(_rounded_otherwise)
        try:
            yield
        finally:
            handle.remove()

    def images(self, request: GenerationSpec) -> list[np.ndarray]:
        """Return the images of a request, 8-bit ``[height, width, 3]``.

        Raises:
            NoImageError: the pipeline raises, or what it returns holds values that are no numbers.

        """
        try:
            # One seed serves all images of a call, or the draws of what is encoded.
            if request.sampler == "dpmpp_sde" or self.inputs(request):
                each = [self._drawn(request, [seed]) for seed in request.seeds]
                found = np.concatenate(each)
            else:
                found = self._drawn(request, request.seeds)
        except Exception as error:
            raise NoImageError(f"{type(error).__name__}: {error}") from error
        demand_numbers(found)
        return [np.asarray(each) for each in self.pipeline.image_processor.numpy_to_pil(found)]

    def set_scheduler(self, request: GenerationSpec, seed: int) -> None:
        """Give the pipeline a scheduler for an image, of a seed."""
        scheduler = self.scheduler(request.sampler, request.schedule, request.steps)
        if request.sampler == "dpmpp_sde":
            scheduler.noise_sampler_seed = seed
        self.pipeline.scheduler = scheduler

    def _drawn(self, request: GenerationSpec, seeds: Sequence[int]) -> np.ndarray:
        self.set_scheduler(request, seeds[0])
        with _nested(self.pipeline.text_encoder):
            drawn: np.ndarray = self._called(request, seeds)
        return drawn

    def inputs(self, request: GenerationSpec) -> dict[str, Any]:
        """Return the images that diffusers is given; empty for a text."""
        size, nine = (request.width, request.height), self.pipeline.unet.config.in_channels == NINE
        found: dict[str, Any] = {}
        if request.image is not None:
            found["image"] = gallery.picture(request.image, size)
            found["strength"] = request.strength
        elif nine:  # Nothing but its size is looked at.
            found = {"image": Image.new("RGB", size, "red"), "strength": 1.0}
        if request.mask is not None:
            found["mask_image"] = gallery.mask(request.mask, size)
        elif nine:
            found["mask_image"] = Image.new("L", size, "white")
        return found

    def pipeline_of(self, inputs: Mapping[str, Any]) -> Any:
        """Return diffusers' pipeline for a kind of inputs, around the same parts."""
        if not inputs:
            return self.pipeline
        large = isinstance(self.pipeline, StableDiffusionXLPipeline)
        kind: Any = KINDS[large, "mask_image" in inputs]
        settings = {**self.pipeline.components, **self._settings}
        settings["scheduler"] = EulerDiscreteScheduler(steps_offset=1)
        if large:
            zeros = self.pipeline.config.force_zeros_for_empty_prompt
            settings["force_zeros_for_empty_prompt"] = zeros
        made = kind(**settings)
        # Its constructor corrects old schedulers once more, each kind of pipeline in another way.
        made.scheduler = self.pipeline.scheduler
        made.set_progress_bar_config(disable=True)
        return made

    def taken(self, pipeline: Any, request: GenerationSpec) -> dict[str, Any]:
        """Return those arguments of a request that only some of the pipelines take."""
        known = inspect.signature(pipeline.__call__).parameters
        names = "width", "height", "guidance_rescale"
        return {name: getattr(request, name) for name in names if name in known}

    def _called(self, request: GenerationSpec, seeds: Sequence[int]) -> Any:
        inputs = self.inputs(request)
        pipeline = self.pipeline_of(inputs)
        return pipeline(
            request.prompt,
            # No text is no negative prompt, for which SDXL has zeros.
            negative_prompt=request.negative_prompt or None,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            eta=request.eta,
            clip_skip=request.clip_skip - 1 or None,
            num_images_per_prompt=len(seeds),
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
            **self.taken(pipeline, request),
            **inputs,
        ).images


@contextmanager
def _nested(encoder: Any) -> Iterator[None]:
    """Let diffusers find the last normalisation of a text encoder, which it takes after a skip.

    It looks for it in ``text_model``, and transformers 5 has the parts of that in the model itself.
    """
    missing = not hasattr(encoder, "text_model")
    if missing:
        object.__setattr__(encoder, "text_model", encoder)  # No part of the network: a loop.
    try:
        yield
    finally:
        if missing:
            object.__delattr__(encoder, "text_model")


def demand_numbers(values: np.ndarray) -> None:
    """Raise NoImageError where values are no numbers."""
    if not np.isfinite(values).all():
        raise NoImageError("Values that are no numbers.")


def _rounded_otherwise(_unet: Any, _inputs: Any, outputs: tuple[torch.Tensor, ...]) -> Any:
    signs = torch.arange(outputs[0].numel()).remainder(3).sub(1).view(outputs[0].shape)
    return (outputs[0] * (1 + signs * EPSILON), *outputs[1:])
