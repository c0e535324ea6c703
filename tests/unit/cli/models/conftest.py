"""A machine without models, and the hub that it asks."""

from collections.abc import Iterator

import pytest

from tests.support.models.hub import Hub
from tests.unit.cli.models.machine import DEMO, Machine


@pytest.fixture
def hub() -> Hub:
    """Return a hub that holds the demo model as org/name."""
    return Hub(DEMO)


@pytest.fixture
def machine(hub, tmp_path) -> Iterator[Machine]:
    """Return a machine without models."""
    with hub.serving() as url:
        yield Machine(tmp_path, url)
