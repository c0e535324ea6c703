"""Which part may import which, and how large files and folders may be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "service"
RANKS = (
    *("cli", "app", "http", "jobs", "webhooks", "access", "engine", "diffusion", "models"),
    *("images", "gpu", "telemetry", "config", "system", "core", "errors"),
)
"""Each part imports only those after it."""

HEAVY = ("torch", "diffusers", "transformers", "numpy", "accelerate", "safetensors")
OPTIONAL = ("opentelemetry", "google", "requests", "ray")
"""Only ``service.telemetry.spans`` imports these, and only where spans are exported; ``ray``, which
ends its process when it has lost its cluster, is imported in processes of its own."""


def module(path: Path) -> str:
    """Return the name of a file's module."""
    return ".".join(path.relative_to(SERVICE.parent).with_suffix("").parts)


FILES = {module(path): path for path in sorted(SERVICE.rglob("*.py"))}
LIGHT = [
    name
    for name in FILES
    if name.split(".")[1] in {*RANKS} - {"cli", "diffusion", "models"}
    and name != "service.telemetry.spans"
    and not name.endswith("__init__")
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


def part(name: str) -> str:
    """Return the part of the service that a module belongs to."""
    return name.split(".")[1]


def test_every_part_has_a_rank():
    """A new folder gets its place in the list."""
    assert {part(name) for name in FILES} - {"__init__", "__main__"} == {*RANKS, "demo"} - (
        set() if (SERVICE / "demo" / "__init__.py").exists() else {"demo"}
    )


def test_the_diagram_in_the_documents_is_this_list():
    """Whoever reads the architecture sees what is checked."""
    text = (SERVICE.parent / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- ranks -->")[2].partition("<!-- /ranks -->")[0]
    assert tuple(re.findall(r"\b[a-z]+\b(?= -->|\n```)", shown)[-len(RANKS) :]) == RANKS


@pytest.mark.parametrize("rank", RANKS)
def test_imports_follow_the_ranks(rank):
    """No part imports one that stands above it."""
    above = RANKS[: RANKS.index(rank)]
    wrong = {
        (name, other)
        for name, path in FILES.items()
        if part(name) == rank
        for other in imported(path)
        if other.startswith("service.") and part(other) in above
    }
    assert wrong == set()


def test_no_module_imports_itself_through_others():
    """Modules import each other in no circle, inside a part neither."""
    arrows = {
        name: {other for other in imported(path) if other in FILES} for name, path in FILES.items()
    }
    while leaves := [name for name, others in arrows.items() if not others & arrows.keys()]:
        for name in leaves:
            del arrows[name]
    assert {name: others & arrows.keys() for name, others in arrows.items()} == {}


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


@pytest.mark.parametrize(("rank", "unknown"), [("jobs", "aiohttp"), ("diffusion", "asyncio")])
def test_each_part_knows_its_own_trade_only(rank, unknown):
    """Jobs know no HTTP, and the model knows no event loop."""
    wrong = {
        name
        for name, path in FILES.items()
        if part(name) == rank and unknown in {other.split(".")[0] for other in imported(path)}
    }
    assert wrong == set()


def test_only_the_sqlite_store_knows_sqlite():
    """Everybody else asks the interface, behind which another database may stand."""
    knows = {name for name, path in FILES.items() if "sqlite3" in imported(path)}
    parts = ("database", "quarantine", "schema", "sqlite")
    assert knows == {f"service.jobs.store.{part}" for part in parts}


def test_only_the_driver_and_the_hosts_know_ray():
    """They are processes of their own, which may end without an exception."""
    knows = {name for name, path in FILES.items() if "ray" in imported(path)}
    assert knows <= {f"service.engine.ray.{part}" for part in ("driver", "links", "actor")}


def test_folders_and_files_stay_small():
    """A folder of code has at most 14 files, and a file of code at most 400 lines."""
    code = [
        path
        for part in ("service", "scripts", "tests", "alerts", "dashboards")
        for path in (SERVICE.parent / part).rglob("*")
        if path.suffix in {".py", ".sh", ".js", ".jsx", ".c"}
    ]
    full = {
        folder.relative_to(SERVICE.parent).as_posix()
        for folder in {path.parent for path in code}
        if sum(path.is_file() for path in folder.iterdir()) > 14
    }
    long = {path.name for path in code if path.read_text(encoding="utf-8").count("\n") > 400}
    assert (full, long) == (set(), set())
