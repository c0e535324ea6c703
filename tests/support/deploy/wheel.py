"""The wheel of this checkout, and what pip, pipx and uv make of it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support.documents import ROOT

PROGRAMS: Final = ROOT / ".venvs" / "clients" / "bin"
"""Where `make .venvs/clients/.installed` puts uv and pipx."""

SEARCHED: Final = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
PATIENCE_SECONDS: Final = 300.0
UNSHARED: Final = ("PYTHONPATH", "VIRTUAL_ENV", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


def tracked() -> list[str]:
    """Return the files of the project, those that are not committed yet, too."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in found if (ROOT / name).is_file()]


def checkout(folder: Path) -> Path:
    """Copy what a wheel is made of; return the folder.

    A build leaves files next to what it reads, and other tests read there.
    """
    for name in tracked():
        if name.startswith("service/") or "/" not in name:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    return folder


def built(folder: Path) -> Path:
    """Run `make wheel` in a copy of the project; return the wheel."""
    make = shutil.which("make") or "make"
    run([make, "wheel", f"PYTHON={sys.executable}"], folder.parent, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def program(name: str) -> str:
    """Return the path of uvx or pipx, or skip."""
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        pytest.skip(f"{name} is not installed: make .venvs/clients/.installed")
    return found


def run(
    command: list[str | Path],
    home: Path,
    *,
    cwd: Path | None = None,
    expected: int = 0,
    more: Mapping[str, str] | None = None,
) -> str:
    """Run a program as a user with this home would; return what it said, or fail with it."""
    environment = {name: value for name, value in os.environ.items() if name not in UNSHARED}
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd or home,
        env={
            **environment,
            "HOME": str(home),
            "PATH": os.pathsep.join([str(home / ".local" / "bin"), SEARCHED]),
            "HF_HUB_OFFLINE": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            **(more or {}),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr
