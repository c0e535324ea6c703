"""Packages of clients, which run in an environment of their own."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venvs" / "clients"
SCRIPTS = ROOT / "tests" / "clients"

needed = pytest.mark.skipif(
    not (FOLDER / ".installed").exists(), reason=f"make {FOLDER.relative_to(ROOT)}/.installed"
)
"""Marks tests of them: they are not among the packages of the service."""


def started(script: str) -> subprocess.Popen[str]:
    """Start a script of ``tests/clients`` with pipes to it and from it."""
    command = [FOLDER / "bin" / "python", SCRIPTS / script]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
