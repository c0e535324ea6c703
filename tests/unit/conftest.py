"""What unit tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of a kind of tiny model, written when it is first asked for."""
    root = tmp_path_factory.mktemp("models")

    def get(kind: str) -> Path:
        from tests import tiny_models  # noqa: PLC0415 - most tests do without torch

        path = root / kind
        if not path.exists():
            getattr(tiny_models, f"build_{kind}")(path)
        return path

    return get
