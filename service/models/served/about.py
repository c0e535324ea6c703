"""The licence and the size of a model, as its files tell them."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.errors import ServiceError
from service.models import weights
from service.models.source import Source

FRONT: Final = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
"""What the hub reads at the beginning of a README."""

NAMED: Final = re.compile(r"^license(_name)?:[ \t]*['\"]?([^'\"\n#]+)", re.MULTILINE)
LICENCES: Final = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE")
TOLD: Final = "modelspec.license"
"""Entry of a file's metadata (ModelSpec 1.0)."""

OTHER: Final = "other"
"""What a README says whose licence has a name of its own."""

MOST_BYTES: Final = 65_536
LONGEST: Final = 120


def licence(source: Source) -> str:
    """Return the licence that a model's README, LICENSE file or weights name; empty if none do."""
    if source.path is None:
        return ""
    if source.single_file:
        with suppress(ServiceError, OSError):
            return _short(weights.metadata(source.path).get(TOLD, ""))
        return ""
    front = FRONT.search(_text(source.path / "README.md"))
    named = {bool(own): name.strip() for own, name in NAMED.findall(front[1] if front else "")}
    if named.get(False) == OTHER and True in named:
        return _short(named[True])
    if False in named:
        return _short(named[False])
    text = next(filter(None, (_text(source.path / name) for name in LICENCES)), "")
    return _short(next((line for line in text.splitlines() if line.strip(" #*-")), ""))


def size(source: Source) -> int | None:
    """Return the bytes of the weights that loading reads; None where they are not here."""
    found = _weights(source)
    return None if found is None else sum(each.st_size for each in found)


def created(source: Source) -> int:
    """Return the Unix time of the newest of those files; 0 where they are not here."""
    return int(max((each.st_mtime for each in _weights(source) or ()), default=0))


def _weights(source: Source) -> list[os.stat_result] | None:
    if source.path is None:
        return None
    try:
        found = weights.read_files(source, half=False) or weights.read_files(source, half=True)
        return [path.stat() for path in found]
    except (ServiceError, OSError):
        return None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace").replace("\r\n", "\n")
    except OSError:
        return ""


def _short(text: str) -> str:
    return "".join(sign for sign in text.strip(" #*-\t") if sign.isprintable())[:LONGEST]
