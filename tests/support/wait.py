"""Waiting for conditions, never longer than a bound."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp

Value = TypeVar("Value")

POLL_SECONDS = 0.25


class TooLateError(Exception):
    """What was waited for did not come within its bound."""


async def until(
    condition: Callable[[], Awaitable[Value | None]], seconds: float, what: str
) -> Value:
    """Ask until the answer is true and return it; no answer at all is not true either.

    Raises:
        TooLateError: names what did not come; why not, where that is known.

    """
    last = ""
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    if answer := await condition():
                        return answer
                except (aiohttp.ClientError, TimeoutError) as error:
                    last = f" ({type(error).__name__}: {error})"
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise TooLateError(f"{what}: not within {seconds:.0f} s{last}") from None


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on now."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])
