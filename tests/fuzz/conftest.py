"""How much is fuzzed, and from which seed."""

import logging

import pytest
import structlog


@pytest.fixture
def fuzz_cases(request) -> int:
    """Return how many requests shall be sent, at least."""
    return int(request.config.getoption("--fuzz-cases"))


@pytest.fixture
def fuzz_seed(request) -> int:
    """Return what everything is drawn from."""
    return int(request.config.getoption("--fuzz-seed"))


@pytest.fixture(autouse=True)
def _quiet():
    """Keep thousands of refusals out of the output; errors stay."""
    settings = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.configure(**settings)
