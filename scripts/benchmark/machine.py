"""The machine in general terms: enough to judge the figures by, nothing that names it."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("torch", "diffusers", "litserve")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What computed; empty or 0 where it is another machine and the service does not tell."""

    device: str
    dtype: str
    model: str
    version: str
    """Of the service."""
    cores: int = 0
    threads: int = 0
    batch: int = 0
    packages: Mapping[str, str]

    def json(self) -> dict[str, Any]:
        """Return everything for a file."""
        return asdict(self)

    def __str__(self) -> str:
        """Return one line for people."""
        parts = [f"{self.cores} CPU cores"] if self.cores else []
        parts += [f"device {self.device}", f"model {self.model} in {self.dtype}"]
        if self.threads:
            parts.append(f"{self.threads} torch threads")
        if self.batch:
            parts.append(f"MAX_CONCURRENT_REQUESTS={self.batch}")
        parts += [f"{name} {number}" for name, number in self.packages.items()]
        return ", ".join([*parts, f"service {self.version}"])


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # pragma: no cover - only Linux can tell
        return os.cpu_count() or 1


def machine(health: Mapping[str, Any], *, threads: int = 0, batch: int = 0) -> Machine:
    """Put together what ``/health`` says and, with ``threads``, what is known of this machine."""
    model = health.get("model") or {}
    return Machine(
        device=str(model.get("device", "unknown")),
        dtype=str(model.get("dtype", "unknown")),
        model=str(model.get("id", "unknown")),
        version=str(health.get("version", "unknown")),
        cores=cores() if threads else 0,
        threads=threads,
        batch=batch,
        packages=_packages() if threads else {},
    )


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
