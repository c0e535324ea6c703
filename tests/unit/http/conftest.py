"""A running application around the fake engine."""

import pytest

from service.app import create_app
from service.config import Config
from service.engine.fake import FakeEngine
from service.http.keys import CONSUMER


@pytest.fixture
def serve(aiohttp_client):
    """Start an application with these settings; return its client."""

    async def start(engine: FakeEngine | None = None, **settings):
        config = Config(**{"data_dir": ""} | settings)
        return await aiohttp_client(create_app(config, engine or FakeEngine()))

    return start


@pytest.fixture
async def client(serve):
    """Return a client of an application with the default settings."""
    return await serve()


@pytest.fixture
def queued():
    """Wait until this many requests wait in an application's queue."""

    async def until(client, count: int) -> None:
        while client.app[CONSUMER].depth != count:
            async with client.get("/health/live"):  # A round trip lets the others move on.
                pass

    return until
