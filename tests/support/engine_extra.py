"""What can only be tested where the packages of the extra [engine] are installed."""

from importlib.util import find_spec

import pytest

needs_engine = pytest.mark.skipif(
    find_spec("torch") is None, reason="needs torch and diffusers: the extra [engine]"
)
