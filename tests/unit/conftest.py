"""What unit tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from service.app import create_app
from service.config.table import Config
from tests.support.simulation.fake_engine import FakeEngine


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of a kind of tiny model, written when it is first asked for."""
    root = tmp_path_factory.mktemp("models")

    def get(kind: str) -> Path:
        from tests.support.models import tiny_models  # noqa: PLC0415 - most tests do without torch

        path = root / kind
        if not path.exists():
            getattr(tiny_models, f"build_{kind}")(path)
        return path

    return get


@pytest.fixture
def serve(aiohttp_client):
    """Start an application with these settings; return its client."""

    async def start(engine: FakeEngine | None = None, **settings):
        config = Config(**{"data_dir": ""} | settings)
        return await aiohttp_client(create_app(config, engine or FakeEngine()))

    return start
