"""The median of ratios, and between which bounds it lies."""

import math
from collections.abc import Sequence
from typing import Final

LEVEL: Final = 0.95
"""Least probability that the median lies between the bounds."""


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return a lower and an upper bound of the median, and how probably it lies between them.

    Both are of the sample. The median lies below the k-th of n values, or above the k-th last, as
    probably as n throws of a coin show fewer than k heads, or fewer than k tails.
    """
    found, count = sorted(values), len(values)
    # From the k-th to the k-th last.
    holds = {
        k: 1 - 2 * sum(math.comb(count, heads) for heads in range(k)) / 2**count
        for k in range(1, count // 2 + 1)
    }
    k = max((k for k, sure in holds.items() if sure >= LEVEL), default=1)
    return found[k - 1], found[-k], holds.get(k, 0.0)
