"""Which start a request has."""

from service.core.inputs import EngineInputs
from service.core.spec import GenerationSpec
from service.diffusion.load import Model
from service.diffusion.loop.starts.base import Start, TextStart
from service.diffusion.loop.starts.image import ImageStart
from service.diffusion.loop.starts.inpaint import InpaintStart, WholeStart


def start_of(request: GenerationSpec, inputs: EngineInputs | None, model: Model) -> Start:
    """Return the start of a request's images, or of their first pass."""
    inputs = inputs or EngineInputs(image=b"")
    if request.image is None:
        return for_model(TextStart(request), model)
    if request.masked:
        return InpaintStart(request, inputs, model.info.inpainting)
    return for_model(ImageStart(request, inputs), model)


def for_model(start: Start, model: Model) -> Start:
    """Return a start that knows of no mask, as a model takes it."""
    return WholeStart(start.request, start) if model.info.inpainting else start
