"""How much work a request is, in pixel steps: pixels times evaluations of the UNet."""

from service.diffusion.generation import GenerationRequest

REST_STEPS = 3
"""What a picture takes beside its steps, in steps: at 512x512 the decoder's 2.5 TFLOP are
three of the UNet's 0.8."""

EVALUATIONS = {"heun": 2}
"""UNet evaluations a step of the samplers that need more than one."""


def work(request: GenerationRequest, *, steps_done: int = 0) -> int:
    """Return the pixel steps that a request needs from its first or a later step to the end.

    This is an estimate from the request alone: the order of the queue must not depend on
    what a machine measured.
    """
    return pixels(request) * (evaluations(request, steps_done=steps_done) + REST_STEPS)


def evaluations(request: GenerationRequest, *, steps_done: int = 0) -> int:
    """Return the UNet evaluations that each picture of a request still needs."""
    left = max(request.steps - steps_done, 0)
    return left * EVALUATIONS.get(request.sampler, 1)


def pixels(request: GenerationRequest) -> int:
    """Return the pixels of all pictures of a request."""
    return request.width * request.height * request.num_images
