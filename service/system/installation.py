"""How this program was installed, and the commands that change the installation."""

import json
import shlex
import sys
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

DISTRIBUTION: Final = "sd-api"
ENGINE: Final = "engine"
ROOT: Final = Path(__file__).parents[2]
"""The folder that holds the package."""

CHECKOUT: Final = ("Makefile", "pyproject.toml")
TORCH_INDEX: Final = "https://download.pytorch.org/whl"


class Kind(StrEnum):
    """What installed the program."""

    CHECKOUT = "make"
    EDITABLE = "pip install --editable"
    PIP = "pip install"
    PIPX = "pipx install"
    PIPX_RUN = "pipx run"
    UV_TOOL = "uv tool install"
    UVX = "uvx"


ONE_RUN: Final = frozenset({Kind.PIPX_RUN, Kind.UVX})
"""What makes an environment for one command; nothing is installed into it later."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What installed the program, and from where: commands that run as printed."""

    kind: Kind
    source: str
    """Path or requirement that it was installed from, without extras."""
    python: str = sys.executable or "python3"

    def engine(self) -> str:
        """Return the command that installs what the engine needs."""
        return self.extras(ENGINE)

    def extras(self, *names: str) -> str:
        """Return the command that installs the program again, with these extras."""
        wanted = requirement(self.source, *names)
        match self.kind:
            case Kind.CHECKOUT if names == (ENGINE,):
                words = ["make", "-C", self.source, "install"]
            case Kind.CHECKOUT | Kind.EDITABLE:
                words = [*self._pip(), "--editable", wanted]
            case Kind.PIP:
                words = [*self._pip(), wanted]
            case Kind.PIPX:
                words = ["pipx", "install", "--force", wanted]
            case Kind.PIPX_RUN:
                words = ["pipx", "run", "--spec", wanted, DISTRIBUTION]
            case Kind.UV_TOOL:
                words = ["uv", "tool", "install", "--force", wanted]
            case Kind.UVX:
                words = ["uvx", "--from", wanted, DISTRIBUTION]
        return shlex.join(words)

    def torch(self, build: str) -> str:
        """Return the command that installs a build of torch: cpu, cu126, cu130."""
        wanted = requirement(self.source, ENGINE)
        index = ["--index-url", f"{TORCH_INDEX}/{build}"]
        inject = shlex.join(["pipx", "inject", "--force", DISTRIBUTION, "torch", *index])
        match self.kind:
            case Kind.CHECKOUT:
                return shlex.join(["make", "-C", self.source, "serve", f"TORCH={build}"])
            case Kind.EDITABLE | Kind.PIP:
                return shlex.join([*self._pip(), "--force-reinstall", "torch", *index])
            case Kind.PIPX:
                return inject
            case Kind.PIPX_RUN:
                return f"{shlex.join(['pipx', 'install', wanted])} && {inject}"
            case Kind.UV_TOOL:
                backend = ["--torch-backend", build]
                return shlex.join(["uv", "tool", "install", "--force", *backend, wanted])
            case Kind.UVX:
                return shlex.join(["uvx", "--torch-backend", build, "--from", wanted, DISTRIBUTION])

    def alone(self, package: str) -> str:
        """Return the command that adds a package without what it needs; empty where none can."""
        match self.kind:
            case Kind.CHECKOUT | Kind.EDITABLE | Kind.PIP:
                return shlex.join([*self._pip(), "--no-deps", package])
            case Kind.PIPX:
                return shlex.join(["pipx", "runpip", DISTRIBUTION, "install", "--no-deps", package])
            case Kind.UV_TOOL:
                return shlex.join([*self._uv_pip(), "--no-deps", package])
            case Kind.PIPX_RUN | Kind.UVX:
                return ""

    def _pip(self) -> list[str]:
        # An environment that uv made has no pip of its own.
        return [self.python, "-m", "pip", "install"] if find_spec("pip") else self._uv_pip()

    def _uv_pip(self) -> list[str]:
        return ["uv", "pip", "install", "--python", self.python]


def here() -> Installation:
    """Return how the program that runs now was installed."""
    if all((ROOT / name).is_file() for name in CHECKOUT):
        made = Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()
        return Installation(kind=Kind.CHECKOUT if made else Kind.EDITABLE, source=str(ROOT))
    return Installation(kind=kind_of(Path(sys.prefix)), source=_source())


def kind_of(environment: Path) -> Kind:
    """Return what made a virtual environment, by the files that it left in it."""
    if (environment / "pipx_metadata.json").is_file():
        return Kind.PIPX if environment.parent.name == "venvs" else Kind.PIPX_RUN
    if (environment / "uv-receipt.toml").is_file():
        return Kind.UV_TOOL
    # uv keeps the environments of uvx in its cache, in a folder with the number of its layout.
    return Kind.UVX if environment.parent.name.startswith("archive-v") else Kind.PIP


def requirement(source: str, *extras: str) -> str:
    """Return what pip, pipx and uv take for a source with extras."""
    if not extras:
        return source
    listed = f"[{','.join(extras)}]"
    if "://" in source:
        return f"{DISTRIBUTION}{listed} @ {source}"
    return f"{source}{listed}"


def _source() -> str:
    """Return what the package was installed from (PEP 610); its name where an index had it."""
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        said = json.loads(text or "{}")
        address, revision = said.get("url"), said.get("vcs_info")
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return DISTRIBUTION
    if not isinstance(address, str) or not address:
        return DISTRIBUTION
    if isinstance(revision, dict):
        return f"{revision.get('vcs')}+{address}@{revision.get('commit_id')}"
    parts = urlsplit(address)
    return unquote(parts.path) if parts.scheme == "file" else address
