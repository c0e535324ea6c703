"""Which start a request has."""

from service.core.inputs import EngineInputs
from service.core.spec import GenerationSpec
from service.diffusion.loop.starts.base import Start, TextStart
from service.diffusion.loop.starts.image import ImageStart


def start_of(request: GenerationSpec, inputs: EngineInputs | None) -> Start:
    """Return the start of a request's images, or of their first pass."""
    if request.image is None:
        return TextStart(request)
    return ImageStart(request, inputs or EngineInputs(image=b""))
