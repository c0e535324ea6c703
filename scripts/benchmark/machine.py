"""The machine in general terms: enough to judge the figures by, nothing that names it."""

import os
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = ("torch", "diffusers", "litserve")


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # pragma: no cover - only Linux can tell
        return os.cpu_count() or 1


def processor() -> str:
    """Return the name of the CPU, as far as it tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(": ")[2] for line in lines if "model name" in line), "unknown")


def machine(health: Mapping[str, Any], *, threads: int = 0, batch: int = 0) -> dict[str, Any]:
    """Put together what ``/health`` says and, with ``threads``, what is known of this machine."""
    model = health.get("model") or {}
    return {
        "device": model.get("device", "unknown"),
        "dtype": model.get("dtype", "unknown"),
        "model": model.get("id", "unknown"),
        "version": health.get("version", "unknown"),
        "cores": cores() if threads else 0,
        "threads": threads,
        "batch": batch,
        "packages": dict(_packages()) if threads else {},
    }


def _packages() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def line(machine: Mapping[str, Any]) -> str:
    """Return a machine in one line."""
    parts = [f"{machine['cores']} CPU cores"] if machine["cores"] else []
    parts += [f"device {machine['device']}", f"model {machine['model']} in {machine['dtype']}"]
    if machine["threads"]:
        parts.append(f"{machine['threads']} torch threads")
    if machine["batch"]:
        parts.append(f"MAX_CONCURRENT_REQUESTS={machine['batch']}")
    parts += [f"{name} {number}" for name, number in machine["packages"].items()]
    return ", ".join([*parts, f"service {machine['version']}"])
