"""The VAE's work in the step loop: images to latents and back, whole or in tiles."""

from collections.abc import Callable
from dataclasses import replace

import torch

from service.core.image import RawImage
from service.core.stage import Stage
from service.diffusion.families.base import Encoded
from service.diffusion.load import Model
from service.diffusion.loop.decode import decode, demand_finite
from service.diffusion.loop.order import Task
from service.diffusion.loop.tasks import Tasks
from service.diffusion.memory.model import MemoryModel
from service.diffusion.memory.oom_recovery import OomRecovery
from service.diffusion.memory.usage import synchronise


class ImageCoder:
    """Encodes and decodes one image at a time; what fails ends its job."""

    def __init__(
        self,
        model: Model,
        tasks: Tasks,
        recovery: OomRecovery,
        memory_model: MemoryModel,
        fault: Callable[[Stage, int], None],
    ) -> None:
        self._model, self._tasks = model, tasks
        self._recovery, self._memory_model, self._fault = recovery, memory_model, fault

    def encode(
        self, task: Task, read: Callable[[], tuple[torch.Tensor, ...]]
    ) -> tuple[Encoded, ...] | None:
        """Return what the VAE finds in the images ``[1, 3, height, width]`` that ``read`` returns.

        None if it failed.
        """
        images = self._tasks.attempt(task, Stage.VAE_ENCODE, read)
        if images is None:
            return None
        found: list[Encoded] = []
        with self._tasks.timed(task, Stage.VAE_ENCODE):
            for image in images:
                encoded = self._tasks.attempt(
                    task,
                    Stage.VAE_ENCODE,
                    lambda: self._encoded(image),  # noqa: B023 - called at once
                    latents=self._latents(image),
                )
                if encoded is None:
                    return None
                found.append(encoded)
            if found:
                synchronise(self._model.device)
        return tuple(found)

    def decode(self, task: Task, latents: torch.Tensor, seed: int) -> RawImage | None:
        """Return the image of latents; None if it failed."""
        with self._tasks.timed(task, Stage.VAE_DECODE):
            return self._tasks.attempt(
                task,
                Stage.VAE_DECODE,
                lambda: self._decoded(latents, seed),
                latents=latents.shape,
            )

    def checked(self, task: Task, image: RawImage) -> RawImage | None:
        """Return the image, black if the safety checker flags it; None if that failed."""
        if not self._model.family.has_safety_checker:
            return image
        with self._tasks.timed(task, Stage.SAFETY):
            return self._tasks.attempt(task, Stage.SAFETY, lambda: self._judged(image))

    def _encoded(self, image: torch.Tensor) -> Encoded:
        self._fault(Stage.VAE_ENCODE, 1)
        shape, pixels = self._latents(image), image.shape[2] * image.shape[3]
        with (
            self._recovery.tiles[Stage.VAE_ENCODE].applied(shape) as whole,
            self._memory_model.measuring(Stage.VAE_ENCODE, pixels, counts=whole),
        ):
            found = self._model.family.encode_image(image)
        demand_finite(self._model, found.values, "latents of the input image")
        return found

    def _decoded(self, latents: torch.Tensor, seed: int) -> RawImage:
        self._fault(Stage.VAE_DECODE, 1)
        pixels = latents.shape[2] * latents.shape[3] * self._model.family.limits.scale_factor**2
        with (
            self._recovery.tiles[Stage.VAE_DECODE].applied(latents.shape) as whole,
            self._memory_model.measuring(Stage.VAE_DECODE, pixels, counts=whole),
        ):
            return decode(self._model, latents, seed)

    def _judged(self, image: RawImage) -> RawImage:
        self._fault(Stage.SAFETY, 1)
        if not self._model.family.is_unsafe(image):
            return image
        return replace(image, pixels=bytes(len(image.pixels)), unsafe=True)

    def _latents(self, image: torch.Tensor) -> torch.Size:
        """Return the shape of an image's latents."""
        height, width = image.shape[2:]
        limits = self._model.family.limits
        return torch.Size((1, limits.latent_channels, *limits.latent_size(width, height)))
