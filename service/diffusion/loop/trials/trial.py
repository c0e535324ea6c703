"""Trial images: made step by step, so that a running batch can go on between two of them."""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
Trial = Generator[None, None, T]
"""Yields before each step; returns what the images taught."""


def to_the_end(trial: Trial[T]) -> T:
    """Make all images at once."""
    while True:
        try:
            next(trial)
        except StopIteration as end:
            found: T = end.value
            return found
