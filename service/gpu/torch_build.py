"""Which build of torch fits which GPU and driver; imports no torch."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Final

from service.system import installation

Capability = tuple[int, int]
"""A GPU's compute capability; a GTX 1060 has (6, 1)."""

TURING: Final = (7, 5)
"""The oldest that builds for CUDA 13 have kernels for (CUDA 13.0 release notes)."""

MAXWELL: Final = (5, 0)
"""The oldest that the cu126 builds of torch have kernels for."""

DRIVERS: Final = {12: "525", 13: "580"}
"""The oldest driver that serves each major version of CUDA (CUDA compatibility guide)."""

FIELD: Final = re.compile(r"^(\w+)\s*(?::[^=]+)?=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class TorchBuild:
    """What the installed torch was built for."""

    version: str
    cuda: tuple[int, ...] | None
    """Version of CUDA; None for a build that knows no NVIDIA GPU."""
    other: bool = False
    """Whether it is for GPUs of another maker."""


def installed() -> TorchBuild | None:
    """Return the installed torch, read from its small version file; None without one."""
    found = util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    said = dict(FIELD.findall(text))
    cuda = tuple(int(part) for part in said["cuda"].split(".")) if "cuda" in said else None
    return TorchBuild(
        version=said.get("__version__", "of unknown version"),
        cuda=cuda,
        other=bool({"hip", "rocm", "xpu"} & said.keys()),
    )


def serves(capability: Capability, architectures: Iterable[str]) -> bool:
    """Tell whether one of ``torch.cuda.get_arch_list()`` runs on a GPU.

    Machine code (``sm_60``) runs on the same major version from its minor version on, so
    that 6.0 serves a GTX 1060; ``sm_90a`` runs on 9.0 alone. PTX (``compute_90``) is compiled
    for every newer GPU when it is first used, that of one family (``compute_100f``) for its
    major version (CUDA C++ Programming Guide, application compatibility).
    """
    return any(_serves(capability, name) for name in architectures)


def _serves(capability: Capability, name: str) -> bool:
    kind, _, number = name.partition("_")
    digits = number.rstrip("abcdefghijklmnopqrstuvwxyz")
    if not digits.isdecimal() or len(digits) < 2:  # noqa: PLR2004 - a major and a minor digit
        return False
    built = int(digits[:-1]), int(digits[-1])
    if number.endswith("a"):
        return built == capability
    if kind == "compute" and not number.endswith("f"):
        return built <= capability
    same_family = built[0] == capability[0] and built[1] <= capability[1]
    return kind in {"sm", "compute"} and same_family


def cure(capability: Capability | None) -> str:
    """Return which image or installation fits a GPU, as the end of a message."""
    if capability is not None and capability < MAXWELL:
        return "No build of torch serves it any more: use the image tagged cpu, or set DEVICE=cpu."
    if capability is not None and capability < TURING:
        return f"It needs the image tagged cu126, or {_install('cu126')} (torch below 2.15)."
    return f"It needs the image tagged cuda, or {_install('cu130')}."


def older_driver_cure(driver: str, build: TorchBuild) -> str:
    """Return what helps where the driver is older than the CUDA that torch was built for."""
    major = build.cuda[0] if build.cuda else 0
    newer = f"Install driver {DRIVERS[major]} or newer" if major in DRIVERS else "Update the driver"
    other = f", use the image tagged cu126, or {_install('cu126')}" if major > min(DRIVERS) else ""
    return f"{newer} (now {driver or 'unknown'}){other}, or set DEVICE=cpu."


def _install(name: str) -> str:
    return f"'{installation.here().torch(name)}'"
