"""Waiting for conditions, never longer than a bound."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

Value = TypeVar("Value")

POLL_SECONDS = 0.25


class TooLateError(Exception):
    """What was waited for did not come within its bound."""


async def until(
    condition: Callable[[], Awaitable[Value | None]], seconds: float, what: str
) -> Value:
    """Ask until the answer is true and return it.

    Raises:
        TooLateError: names what did not come; the last answer too, where it says something.

    """
    answer: Value | None = None
    try:
        async with asyncio.timeout(seconds):
            while not (answer := await condition()):  # noqa: ASYNC110 - other programs' states
                await asyncio.sleep(POLL_SECONDS)
            return answer
    except TimeoutError:
        told = f" (last: {answer!r})" if answer else ""
        raise TooLateError(f"{what}: not within {seconds:.0f} s{told}") from None


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on now."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])
