"""A machine with a GPU, a driver and a torch of paper."""

from pathlib import Path

import pytest

from tests.nvml.driver import NoCompilerError, build
from tests.unit.cli.preflight.start import Start


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """Build the stand-in for the driver's library once."""
    try:
        return build(tmp_path_factory.mktemp("nvml"))
    except NoCompilerError as error:
        pytest.skip(str(error))


@pytest.fixture
def start(tmp_path, library) -> Start:
    """Return a machine with a GTX 1060, 6 GB, 2 of them taken."""
    return Start(tmp_path, library)
