"""The nearest request that a model can draw to one that it cannot, and what was changed for it."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeGuard

from service.core.inputs import HIRES_MULTIPLE, InputImage
from service.core.limits import RequestLimits, fitted

LARGEST: Final = 10**9
"""Larger numbers are refused, as what no image could be like."""
HUNDREDTHS: Final = 100
SIDES: Final = ("width", "height")

Given = dict[str, Any]
Names = Mapping[str, str]


def fit(given: Given, limits: RequestLimits, names: Names) -> Iterator[str]:
    """Replace what is not possible, and yield a line for each change.

    ``names`` are what a client calls the fields. What is no number is left to be refused.
    """
    for each in (_fit_size, _fit_steps, _fit_hires, _fit_strength):
        yield from each(given, limits, names)


def complete(given: Given, limits: RequestLimits) -> None:
    """Fill in the side of a second pass that follows from the other and from the first pass."""
    hires = given.get("hires")
    if not isinstance(hires, dict):
        return
    wide, high = (hires.get(side) or 0 for side in SIDES)
    first = _first_size(given, limits)
    if first is None or bool(wide) is bool(high) or not _whole(wide or high):
        return
    width, height = first
    given["hires"] = {
        **hires,
        **_sides(wide or high * width / height, high or wide * height / width),
    }


def _sides(wide: float, high: float) -> dict[str, int]:
    return dict(zip(SIDES, (_multiple(wide), _multiple(high)), strict=True))


def _multiple(pixels: float) -> int:
    return int(pixels / HIRES_MULTIPLE + 0.5) * HIRES_MULTIPLE


def _first_size(given: Given, limits: RequestLimits) -> tuple[int, int] | None:
    """Return the width and height of the first or only pass; None where they are no numbers."""
    image, size = given.get("image"), (limits.default_size, limits.default_size)
    if isinstance(image, InputImage):
        size = fitted(image.width, image.height, limits.min_size, limits.max_size)
    width, height = (given.get(side, other) for side, other in zip(SIDES, size, strict=True))
    return (int(width), int(height)) if _whole(width) and _whole(height) else None


def _fit_size(given: Given, limits: RequestLimits, names: Names) -> Iterator[str]:
    if not {*SIDES} & given.keys() or (size := _first_size(given, limits)) is None:
        return
    given["width"], given["height"] = found = fitted(*size, limits.min_size, limits.max_size)
    if found != size:
        yield _other_size(SIDES, size, found, names)


def _other_size(
    fields: tuple[str, ...], asked: tuple[int, int], found: tuple[int, int], names: Names
) -> str:
    called = " and ".join(dict.fromkeys(names.get(each, each) for each in fields))
    return (
        f"{called}: {asked[0]}x{asked[1]} is not possible with this model; the nearest possible "
        f"size is {found[0]}x{found[1]}."
    )


def _fit_steps(given: Given, limits: RequestLimits, names: Names) -> Iterator[str]:
    if (steps := _steps(given.get("steps"), limits)) is not None:
        asked, given["steps"] = given["steps"], steps
        yield _fewer("steps", asked, steps, names)
    hires = given.get("hires")
    if isinstance(hires, dict) and (steps := _steps(hires.get("steps"), limits)) is not None:
        given["hires"] = {**hires, "steps": steps}
        yield _fewer("hires.steps", hires["steps"], steps, names)


def _steps(asked: Any, limits: RequestLimits) -> int | None:
    return limits.max_steps if _whole(asked) and asked > limits.max_steps else None


def _fewer(field: str, asked: float, found: int, names: Names) -> str:
    return f"{names.get(field, field)}: {int(asked)} is above the most; it is {found}."


def _fit_hires(given: Given, limits: RequestLimits, names: Names) -> Iterator[str]:
    hires, first = given.get("hires"), _first_size(given, limits)
    if not isinstance(hires, dict) or first is None:
        return
    scale, wide, high = (hires.get(each) for each in ("scale", *SIDES))
    scaled = False
    if _number(scale) and not (wide or high):
        scaled = True
        wide, high = first[0] * scale, first[1] * scale
    if not (_number(wide) and _number(high)):
        return
    asked = int(wide), int(high)
    shrunk = min(1.0, limits.max_hires_size / max(asked))
    if scaled and shrunk == 1:
        return
    fields = ("hires.scale",) if scaled else ("hires.width", "hires.height")
    found = _sides(asked[0] * shrunk, asked[1] * shrunk)
    rest = {name: value for name, value in hires.items() if name != "scale"}
    given["hires"] = {**rest, **found}
    if (found["width"], found["height"]) != asked:
        yield _other_size(fields, asked, (found["width"], found["height"]), names)


def _fit_strength(given: Given, limits: RequestLimits, names: Names) -> Iterator[str]:
    steps, hires = given.get("steps", limits.default_steps), given.get("hires")
    if given.get("image") is not None:
        yield from _stronger(given, steps, "strength", names)
    if isinstance(hires, dict):
        given["hires"] = hires = dict(hires)
        yield from _stronger(hires, hires.get("steps") or steps, "hires.strength", names)


def _stronger(given: Given, steps: Any, field: str, names: Names) -> Iterator[str]:
    """Raise a strength that leaves no step to the least one that does."""
    strength = given.get("strength")
    if not _whole(steps) or not (_number(strength) or strength == 0) or int(steps * strength) > 0:
        return
    given["strength"] = least = math.ceil(HUNDREDTHS / steps) / HUNDREDTHS
    yield f"{names.get(field, field)}: {strength:g} leaves no step; it is {least:g}."


def _number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a number above 0 that somebody may mean."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < LARGEST


def _whole(value: Any) -> TypeGuard[float]:
    return _number(value) and float(value).is_integer()
