"""How much work a request is, in pixel steps: pixels times evaluations of the UNet.

An image of a prompt with AND takes a row of the UNet's batch for each of its sub-prompts. It
counts as the images with one prompt and one negative prompt that take as many rows.
"""

import math

from service.core.inputs import HiresResize
from service.core.prompt import language
from service.core.prompt.syntax import PromptSyntax
from service.core.sampler import Sampler
from service.core.spec import GenerationSpec

REST_STEPS = 3
"""What an image takes in addition to its steps, in steps: at 512x512 the decoder's 2.5 TFLOP are
three of the UNet's 0.8."""

ENCODE_STEPS = 1
"""What encoding an image takes, in steps: the encoder's 1.1 TFLOP at 512x512."""

EVALUATIONS = {sampler.value: sampler.evaluations for sampler in Sampler}
"""UNet evaluations a step, by sampler: looked up for every waiting job at every change."""


def work(request: GenerationSpec, *, steps_done: int = 0) -> int:
    """Return the pixel steps that a request needs from its first or a later step to the end.

    This is an estimate from the request alone: the order of the queue must not depend on
    what a machine measured.
    """
    rest = evaluations(request, steps_done=steps_done) + REST_STEPS
    return pixels(request) * (rest + _between(request, steps_done))


def evaluations(request: GenerationSpec, *, steps_done: int = 0) -> int:
    """Return the UNet evaluations that each image of a request still needs, at its last size.

    Those of a first pass in another size count by their pixels.
    """
    first, second = request.first_steps, request.hires_steps
    left = max(first - steps_done, 0)
    if request.hires is not None:
        of_second = second - max(steps_done - first, 0)
        share = request.width * request.height / math.prod(request.drawn_size)
        left = math.ceil(left * share) + max(of_second, 0)
    return left * EVALUATIONS[request.sampler]


def _between(request: GenerationSpec, steps_done: int) -> int:
    """Return the steps that the way from the first pass through pixels to the second takes."""
    hires = request.hires
    if hires is None or hires.resize != HiresResize.LANCZOS or steps_done > request.first_steps:
        return 0
    share = request.width * request.height / math.prod(request.drawn_size)
    return math.ceil(REST_STEPS * share) + ENCODE_STEPS


def pixels(request: GenerationSpec) -> int:
    """Return the pixels of all images that are drawn, as many times as each counts."""
    return int(math.prod(request.drawn_size) * places(request))


def charged(request: GenerationSpec) -> int:
    """Return the images of a quota that a request takes: whole ones.

    One with a second pass counts by its evaluations in those of the first alone.
    """
    share = 1.0
    if request.hires is not None:
        first = request.width * request.height * request.first_steps
        second = math.prod(request.drawn_size) * request.hires_steps
        share += second / first
    return math.ceil(places(request) * share)


def places(request: GenerationSpec) -> float:
    """Return the images that all images of a request count as: whole or half ones."""
    return request.num_images * image_places(request)


def image_places(request: GenerationSpec) -> float:
    """Return the images that each image of a request counts as.

    An image with one prompt takes two rows with its negative one, and counts as 1.
    """
    if request.prompt_syntax == PromptSyntax.PLAIN:
        return 1
    return (len(language.parse(request.prompt).subprompts) + 1) / 2
