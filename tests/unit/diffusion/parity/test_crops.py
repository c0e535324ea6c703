"""Inpainting from the bytes of a request to its result, as diffusers does it with PIL's images.

The reference is one call of diffusers' pipeline with ``padding_mask_crop``: it finds the part
around the mask, enlarges it, draws it, and puts it back.
"""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageDraw

from service.core.events import JobFinished
from service.core.spec import GenerationSpec
from service.diffusion.loop.step_loop import StepLoop
from service.images.inputs import prepared
from service.images.paste import pasting
from tests.support.parity import comparison, gallery
from tests.support.parity.pairs import Pair, Pairs

WIDE, HIGH = 150, 100
SPOTS = {
    "middle": (40, 30, 90, 70),
    "corner": (0, 0, 30, 60),
    "wide": (5, 80, 149, 99),
    "all": (0, 0, WIDE, HIGH),
}
REQUEST = GenerationSpec(
    prompt="a cat",
    width=64,
    height=64,
    steps=4,
    seed=5,
    sampler="euler_a",
    strength=0.8,
    image=gallery.reference(1, WIDE, HIGH),
    mask=gallery.reference(2, WIDE, HIGH),
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def drawn_on(spot: str) -> tuple[Image.Image, Image.Image]:
    """Return an image, and a mask that is white in a rectangle."""
    mask = Image.new("L", (WIDE, HIGH))
    ImageDraw.Draw(mask).rectangle(SPOTS[spot], fill="white")
    return gallery.picture(gallery.reference(1), (WIDE, HIGH)), mask


def as_sent(image: Image.Image) -> bytes:
    """Return the file that a client sends."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def result(pair: Pair, spot: str, request: GenerationSpec) -> np.ndarray:
    """Return what a client gets."""
    image, mask = (as_sent(each) for each in drawn_on(spot))
    loop = StepLoop(pair.model, batch_limit=1)
    loop.add("a", request, inputs=prepared(image, mask, request))
    found = [each for _ in iter(lambda: loop.busy, False) for each in loop.step()]
    (finished,) = (each for each in found if isinstance(each, JobFinished))
    made = pasting(image, mask, request)(finished.images[0])
    return np.frombuffer(made.pixels, np.uint8).reshape(made.height, made.width, 3)


@pytest.mark.parametrize("model", ["sd", "inpaint"])
@pytest.mark.parametrize("spot", SPOTS)
@pytest.mark.parametrize(("padding", "blur"), [(0, 0), (16, 4), (512, 0)])
def test_as_padding_mask_crop(pair: Pairs, model: str, spot: str, padding: int, blur: int) -> None:
    """The part around the mask is drawn at the full size, and put back blurred."""
    found = pair(model)
    request = replace(REQUEST, mask_padding=padding, mask_blur=blur)
    image, mask = drawn_on(spot)
    found.reference.set_scheduler(request, request.seed)
    pipeline = found.reference.pipeline_of({"mask_image": mask})
    if blur:
        mask = VaeImageProcessor.blur(mask, blur)
    theirs = pipeline(
        request.prompt,
        image=image,
        mask_image=mask,
        padding_mask_crop=padding,
        width=request.width,
        height=request.height,
        strength=request.strength,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
    ).images[0]

    ours = result(found, spot, request)

    difference = comparison.difference([ours], [np.asarray(theirs)])
    assert difference.same, difference
    kept = np.asarray(mask) == 0
    assert np.array_equal(ours[kept], np.asarray(image)[kept])


@pytest.mark.parametrize("blur", [0, 6])
@pytest.mark.parametrize("spot", SPOTS)
def test_what_is_not_repainted_is_the_input(pair: Pairs, spot: str, blur: int) -> None:
    """Byte for byte, where the whole image is drawn in its own size."""
    request = replace(REQUEST, width=WIDE, height=HIGH, mask_blur=blur)
    image, mask = drawn_on(spot)
    if blur:
        mask = VaeImageProcessor.blur(mask, blur)
    kept = np.asarray(mask) == 0

    ours = result(pair("sd"), spot, request)

    assert np.array_equal(ours[kept], np.asarray(image)[kept])
    assert not np.array_equal(ours[~kept], np.asarray(image)[~kept])
    assert kept.any() == (spot != "all")
