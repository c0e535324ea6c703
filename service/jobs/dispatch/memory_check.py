"""Check that an image fits into the memory of an engine."""

import math
from typing import Final

from service.core.capacity import Capacity
from service.core.spec import GenerationSpec
from service.core.work import image_places
from service.errors import OutOfMemory

SIDE: Final = 64
"""Widths and heights are multiples of it."""

RETRY_SECONDS: Final = 10
"""Within it an engine has looked at the free memory again, whether or not it has work."""

MIB: Final = 2**20
GIB: Final = 2**30


def lack(
    request: GenerationSpec, capacity: Capacity, *, smallest: int = SIDE
) -> OutOfMemory | None:
    """Return the error of a request whose images do not fit, each alone; None if they do.

    ``smallest`` is the least side that may be asked for: with less room than that only time
    helps.
    """
    pixels, places = request.largest_pixels, image_places(request)
    if capacity.fits(pixels, places):
        return None
    stage, need = max(
        capacity.need(pixels, places).items(),
        key=lambda pair: pair[1] - capacity.relief.get(pair[0], 0),
    )
    had = capacity.available + capacity.relief.get(stage, 0)
    side = int(math.sqrt(capacity.most_pixels / places)) // SIDE * SIDE
    some = side >= smallest
    width, height = max((request.width, request.height), request.drawn_size, key=math.prod)
    cure = f"Ask for {side}x{side} or less" if some else "Try again when other programs ended"
    return OutOfMemory(
        f"An image of {width}x{height} needs about {_size(need)} of memory in "
        f"addition to the model ({stage}), and {_size(had)} are available. {cure}.",
        retry_after=None if some else RETRY_SECONDS,
    )


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
