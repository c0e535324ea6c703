"""What a request begins with, an image or noise: sizes that follow from it, and what goes with it.

A size that is left out is the image's own, as near as the model can draw it.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from service.core.inputs import Hires, InputImage, Pad
from service.core.limits import fitted
from service.core.sampler import Sampler, resolved

SIDES: Final = ("width", "height")
HUNDREDTHS: Final = 100


def with_size(data: dict[str, Any], low: int, high: int) -> dict[str, Any]:
    """Fill in what is left out of the size of a request with an image."""
    image = data.get("image")
    if not isinstance(image, InputImage):
        return data
    pad = data.get("pad")
    added = pad if isinstance(pad, Mapping) else {}
    width, height = fitted(
        image.width + _count(added, "left") + _count(added, "right"),
        image.height + _count(added, "top") + _count(added, "bottom"),
        low,
        high,
    )
    given = {name: value for name, value in data.items() if value is not None}
    return {**data, "width": given.get("width", width), "height": given.get("height", height)}


def _count(added: Mapping[str, Any], side: str) -> int:
    """Return the pixels of a side; what is wrong with it is said elsewhere."""
    value = added.get(side)
    return max(value, 0) if type(value) is int else 0


def faults(data: Mapping[str, Any], low: int, high: int) -> dict[str, list[str]]:
    """Return what does not go together, by field; sides of a second pass are ``low`` to ``high``.

    Fields that are wrong by themselves are not in ``data``.
    """
    found: dict[str, list[str]] = {}
    for name, fault in (*_of_image(data), *_of_hires(data, low, high)):
        found.setdefault(name, []).append(fault)
    return found


def _of_image(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("mask", "pad"):
        if data.get(name) is not None and data.get("image", ...) is None:
            yield name, "needs image: send the image that it belongs to"
    if data.get("pad") == Pad():
        yield "pad", 'must add to one side at least, e.g. {"left": 64}'
    if data.get("image") is not None:
        yield from (("strength", fault) for fault in _too_weak(data, data.get("strength")))


def _too_weak(data: Mapping[str, Any], strength: float | None, steps: int = 0) -> Iterator[str]:
    steps = steps or data.get("steps", 0)
    if steps and strength is not None and int(steps * strength) < 1:
        least = math.ceil(HUNDREDTHS / steps) / HUNDREDTHS
        yield f"must be at least {least:g} with {steps} steps, so that one of them is left"


def _of_hires(data: Mapping[str, Any], low: int, high: int) -> Iterator[tuple[str, str]]:
    hires = data.get("hires")
    if not isinstance(hires, Hires):
        return
    if data.get("image") is not None:
        yield "hires", "cannot go with image: leave one of them out"
    for fault in _too_weak(data, hires.strength, hires.steps):
        yield "hires", f"strength: {fault}"
    most = Sampler(resolved(data["sampler"])[0]).most_steps if "sampler" in data else None
    if most is not None and hires.steps > most:
        yield "hires", f"steps: must be at most {most} with the sampler {data['sampler']}"
    if bool(hires.scale) is bool(hires.width or hires.height):
        yield "hires", 'must have a scale, or width and height, e.g. {"scale": 2}'
    elif bool(hires.width) is not bool(hires.height):
        yield "hires", 'must have width and height, or a scale, e.g. {"scale": 2}'
    elif hires.scale and hires.scale < 1:
        yield "hires", "scale: must be from 1 to 4, e.g. 2"
    elif not all(low <= side <= high for side in hires.size(*(data.get(e, low) for e in SIDES))):
        yield "hires", f"must give sides from {low} to {high} pixels"
