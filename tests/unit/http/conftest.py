"""A running application around the fake engine."""

import pytest

from service.http.state import DISPATCHER


@pytest.fixture
async def client(serve):
    """Return a client of an application with the default settings."""
    return await serve()


@pytest.fixture
def queued():
    """Wait until this many requests wait in an application's queue."""

    async def until(client, count: int) -> None:
        while client.app[DISPATCHER].depth != count:
            async with client.get("/health/live"):  # A round trip lets the others move on.
                pass

    return until
