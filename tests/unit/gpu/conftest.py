"""What the tests of the GPU share: a driver library made for them."""

import ctypes
from pathlib import Path

import pynvml
import pytest

from tests.nvml.driver import Driver, NoCompilerError, build


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory) -> Path:
    """Build the library once."""
    try:
        return build(tmp_path_factory.mktemp("nvml"))
    except NoCompilerError as error:
        pytest.skip(str(error))


@pytest.fixture
def card(nvml_library, tmp_path, monkeypatch) -> Driver:
    """Let this process take the stand-in for the driver."""
    driver = Driver(tmp_path, nvml_library)
    monkeypatch.setenv("FAKE_NVML", str(driver.file))
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(nvml_library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return driver
