"""Which part may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "service"
ORDER = ("http", "jobs", "engine", "diffusion", "models")
"""Data and imports go this way and never back."""

HEAVY = ("torch", "diffusers", "transformers", "numpy", "accelerate", "safetensors")
OPTIONAL = ("opentelemetry", "google", "requests")
"""Only ``service.telemetry.spans`` imports these, and only where spans are exported."""

LIGHT = [
    "service.app",
    *(
        f"service.{path.parent.name}.{path.stem}"
        for part in ("http", "jobs", "telemetry")
        for path in sorted((SERVICE / part).glob("*.py"))
        if path.stem not in ("__init__", "spans")
    ),
    *(f"service.engine.{name}" for name in ("base", "fake", "messages", "process", "worker")),
]


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_service_never_imports_torch():
    """The HTTP side answers while the engine loads, computes or crashes.

    Neither does it import what only tracing needs, before tracing is on.
    """
    code = (
        "import importlib, sys\n"
        f"for name in {LIGHT!r}: importlib.import_module(name)\n"
        f"heavy = sorted({{*{HEAVY!r}, *{OPTIONAL!r}}} & set(sys.modules))\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=SERVICE.parent)


@pytest.mark.parametrize("part", ORDER)
def test_imports_follow_the_arrow(part):
    """http, jobs, engine, diffusion, models: each knows those after it, none before."""
    before = tuple(f"service.{name}" for name in (*ORDER[: ORDER.index(part)], "app", "cli"))
    wrong = {
        (path.name, name)
        for path in (SERVICE / part).rglob("*.py")
        for name in imported(path)
        if name.startswith(before)
    }
    assert wrong == set()


@pytest.mark.parametrize(("part", "unknown"), [("jobs", "aiohttp"), ("diffusion", "asyncio")])
def test_each_part_knows_its_own_trade_only(part, unknown):
    """Jobs know no HTTP, and the model knows no event loop."""
    wrong = {
        path.name
        for path in (SERVICE / part).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] == unknown
    }
    assert wrong == set()
