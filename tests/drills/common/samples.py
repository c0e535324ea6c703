"""Samples of a process while a drill goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psutil

from tests.support.load_client import background, every

EVERY_SECONDS: Final = 0.5


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    return int(psutil.Process(pid).memory_info().rss)


@asynccontextmanager
async def weighed(pid: int, found: list[int]) -> AsyncIterator[None]:
    """Note the resident bytes of a process twice a second until the end."""

    async def weigh() -> None:
        found.append(resident(pid))

    async with background(every(EVERY_SECONDS, weigh)):
        yield
