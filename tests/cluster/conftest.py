"""One Ray cluster for all tests that need one."""

import importlib.util
from collections.abc import Iterator

import pytest

from tests.support.ray.cluster import Cluster

ENGINES = (2, 1)
"""Of two nodes."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Start a head and two nodes for three engines; tests use a namespace each."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: the extra [ray] brings it")
    with Cluster(ENGINES, {"FAKE_JOB_SECONDS": "0.2"}) as started:
        yield started
