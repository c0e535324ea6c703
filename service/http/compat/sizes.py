"""The nearest size that a model can draw to one that it cannot."""

from typing import Final

from service.core.limits import RequestLimits

MULTIPLE: Final = 64
"""Pixels; the native API takes multiples of it, as the models do."""


def fitted(width: int, height: int, limits: RequestLimits) -> tuple[int, int]:
    """Return the possible size nearest to one in pixels, of the same shape as far as possible.

    Both sides shrink together until the longer one is possible, or grow together until the
    shorter one is. A shape that no possible size has loses what is beyond the limits.
    """
    low, high = limits.min_size, limits.max_size
    longer, shorter = max(width, height), min(width, height)
    scale = high / longer if longer > high else max(1.0, min(low / shorter, high / longer))
    return _side(width * scale, low, high), _side(height * scale, low, high)


def _side(wanted: float, low: int, high: int) -> int:
    # Half of a step up, as people round; ``round`` would go to the even one.
    return min(max(int(wanted / MULTIPLE + 0.5) * MULTIPLE, low), high)
