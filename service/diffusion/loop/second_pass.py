"""The start of an image's second pass: what its first one drew, enlarged."""

import torch
from PIL import Image

from service.core.image import RawImage
from service.core.inputs import EngineInputs, HiresResize
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.diffusion.load import Model
from service.diffusion.loop.images import ImageCoder
from service.diffusion.loop.order import Task
from service.diffusion.loop.row import Row
from service.diffusion.loop.starts.base import Start
from service.diffusion.loop.starts.choice import for_model
from service.diffusion.loop.starts.image import ImageStart, LatentStart
from service.diffusion.loop.tasks import Tasks


class SecondPasses:
    """The starts of second passes; what fails ends its job."""

    def __init__(self, model: Model, tasks: Tasks, coder: ImageCoder) -> None:
        self._model, self._tasks, self._coder = model, tasks, coder

    def start(self, task: Task, row: Row, second: GenerationSpec) -> Start | None:
        """Return the start that follows a row whose steps are done; None if it failed.

        Its images are those of diffusers' image to image, with its ``image`` the latents or the
        image of the first pass, enlarged, and a generator of the same seed.
        """
        found = self._found(task, row, second)
        return None if found is None else for_model(found, self._model)

    def _found(self, task: Task, row: Row, second: GenerationSpec) -> Start | None:
        hires = task.request.hires
        if hires is None or hires.resize == HiresResize.LATENT:
            size = self._model.family.limits.latent_size(second.width, second.height)
            larger = self._tasks.attempt(
                task, Stage.DENOISE, lambda: larger_latents(row.latents, size)
            )
            return None if larger is None else LatentStart(second, larger)
        image = self._coder.decode(task, row.latents, row.seed)
        if image is None:
            return None
        return ImageStart(second, EngineInputs(image=lanczos(image, second.width, second.height)))


def larger_latents(latents: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return latents ``[1, channels, height, width]`` of another height and width.

    As AUTOMATIC1111 does it for the upscaler "Latent".
    """
    return torch.nn.functional.interpolate(latents, size, mode="bilinear", antialias=False)


def lanczos(image: RawImage, width: int, height: int) -> bytes:
    """Return the rows of an image in another size."""
    drawn = Image.frombytes("RGB", (image.width, image.height), image.pixels)
    return drawn.resize((width, height), Image.Resampling.LANCZOS).tobytes()
