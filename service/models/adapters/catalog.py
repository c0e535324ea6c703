"""Catalogue of the adapters in a folder; requests know them by name, never by path."""

import hashlib
import re
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from service.config.table import Config
from service.core.prompt import words
from service.errors import AdapterUnsuitable
from service.models.adapters import header
from service.models.adapters.header import AdapterHeader
from service.models.catalog import ADAPTERS, DEMO_ID
from service.models.files import LENGTH, PICKLES, SUFFIX

LONGEST_NAME: Final = 128
"""Characters of the name of an adapter."""

BUNDLED: Final = Path(__file__).parents[2] / "loras"
"""Adapters for the demo model."""

EMBEDDINGS: Final = "embeddings"
"""Folder inside that of the adapters; embeddings may lie in either."""

LISTED: Final = 20
"""Names that an error lists."""

FAMILIES: Final = {"sd1": "sd", "sd2": "sd", "sdxl": "sdxl"}
"""The family of a model (``ModelInfo.family``) by that of the adapters that are made for it."""

CHUNK: Final = 2**20
SHORT: Final = 12
"""Hex digits of AUTOMATIC1111's short form."""


HEX: Final = re.compile(r"[0-9a-f]{12,64}")


class Kind(StrEnum):
    """What a file of the catalogue is."""

    LORA = "lora"
    """It changes layers of a model; requests name it in ``adapters``."""
    EMBEDDING = "embedding"
    """Vectors for a word; prompts name it."""


@dataclass(frozen=True)
class Stamp:
    """One state of a file: another size or time of change is another adapter."""

    path: Path
    changed: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Hashes:
    """Hashes that other tools know an adapter by."""

    sha256: str
    short: str
    """AUTOMATIC1111's: the first digits of what the trainer wrote, else of the SHA-256 of what
    follows the header; of an embedding, of that of the whole file."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One adapter of the catalogue."""

    name: str
    stamp: Stamp
    header: AdapterHeader | None = field(repr=False)
    problem: str = ""
    """Why it cannot be used; empty if it can, as far as its header tells."""

    @property
    def kind(self) -> Kind:
        """What it is, by its header; of a file that cannot be read, by its folder."""
        if self.header is None:
            folder = self.stamp.path.parent.name
            return Kind.EMBEDDING if folder == EMBEDDINGS else Kind.LORA
        return Kind.EMBEDDING if self.header.vectors else Kind.LORA

    def suits(self, family: str) -> bool:
        """Whether it is made for a family of adapters or of models, as far as its header tells."""
        own = self.header.family if self.header else ""
        return not own or not family or family in {own, FAMILIES[own]}

    def demand_for(self, family: str) -> None:
        """Refuse to use it with a family.

        Raises:
            AdapterUnsuitable: it cannot be used at all, or not with this family.

        """
        if self.problem:
            raise AdapterUnsuitable(self.problem)
        if not self.suits(family):
            own = self.header.family if self.header else ""
            raise AdapterUnsuitable(
                f"{self.name} is made for {own}, and the model is of the family {family}; use one "
                "of that family."
            )


class AdapterCatalog:
    """The adapters in folders, read again where a file has changed; safe for several threads.

    Of two files of one name the one in the first folder counts.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._known: dict[Stamp, Entry] = {}
        self._hashes: dict[Stamp, Hashes] = {}

    def stamps(self) -> dict[str, Stamp]:
        """Return the files that may be adapters, by name."""
        found: dict[str, Stamp] = {}
        for path in (each for folder in self._folders for each in _inside(folder)):
            if path.suffix not in {SUFFIX, *PICKLES} or path.name.startswith("."):
                continue
            # A pickle is listed with its fault, unless the same adapter is there without it.
            if path.suffix in PICKLES and path.with_suffix(SUFFIX).exists():
                continue
            try:
                status = path.stat()
            except OSError:
                status = path.lstat()
            if len(path.stem) <= LONGEST_NAME:
                found.setdefault(path.stem, Stamp(path, status.st_mtime_ns, status.st_size))
        return found

    def entries(self) -> list[Entry]:
        """Return every adapter, sorted by name."""
        stamps = self.stamps()
        with self._lock:
            kept = set(stamps.values())
            self._known = {k: v for k, v in self._known.items() if k in kept}
            self._hashes = {k: v for k, v in self._hashes.items() if k in kept}
        return [self._entry(name, stamp) for name, stamp in sorted(stamps.items())]

    def find(self, name: str, family: str = "") -> Entry:
        """Return the adapter of a name, for a model of a family; empty where that is not known.

        Raises:
            AdapterUnsuitable: there is none, with the names that would do; or it cannot be used.

        """
        stamps = self.stamps()
        if name not in stamps:
            there = self._list(family)
            raise AdapterUnsuitable(f"There is no adapter {name[:LONGEST_NAME]!r}. {there}")
        entry = self._entry(name, stamps[name])
        entry.demand_for(family)
        if entry.kind is Kind.EMBEDDING:
            raise AdapterUnsuitable(f"{name} is an embedding: write <{name}> into the prompt.")
        return entry

    def embeddings_in(self, texts: Collection[str], *, bare: bool, family: str = "") -> list[Entry]:
        """Return the embeddings that texts name, sorted by name, for a model of a family.

        With ``bare`` a name counts without brackets, too. A name of nothing is text.

        Raises:
            AdapterUnsuitable: one of them cannot be used.

        """
        if not words.may_name_any(texts, bare=bare):
            return []
        stamps = self.stamps()
        named = {name for text in texts for name in words.named_in(text, stamps, bare=bare)}
        found = [self._entry(name, stamps[name]) for name in sorted(named)]
        embeddings = [each for each in found if each.kind is Kind.EMBEDDING]
        for each in embeddings:
            each.demand_for(family)
        return embeddings

    def hashes(self, entry: Entry, until: float = float("inf")) -> Hashes | None:
        """Return the hashes of an adapter, read once; None if they were not known in time.

        ``until`` is a time of ``time.monotonic``.
        """
        with self._lock:
            known = self._hashes.get(entry.stamp)
        if known is not None:
            return known
        try:
            found = _hashed(entry, until)
        except OSError:
            return None
        if found is not None:
            with self._lock:
                self._hashes[entry.stamp] = found
        return found

    def _list(self, family: str) -> str:
        """Say which adapters a model of a family can have."""
        found = [each for each in self.entries() if each.kind is Kind.LORA]
        names = [each.name for each in found if not each.problem and each.suits(family)]
        if not names:
            which = "that fits this model " if found else ""
            return f"There is none {which}in the folder of adapters (LORA_DIR)."
        shown = ", ".join(names[:LISTED])
        more = len(names) - LISTED
        return f"There are: {shown}{f' and {more} more' if more > 0 else ''}."

    def _entry(self, name: str, stamp: Stamp) -> Entry:
        with self._lock:
            known = self._known.get(stamp)
        if known is not None:
            return known
        try:
            entry = Entry(name=name, stamp=stamp, header=header.read(stamp.path))
        except AdapterUnsuitable as error:
            entry = Entry(name=name, stamp=stamp, header=None, problem=error.detail)
        with self._lock:
            self._known[stamp] = entry
        return entry


def catalog_of(config: Config) -> AdapterCatalog:
    """Return the catalogue of the folder that the settings name, and what suits the demo model."""
    folder = Path(config.lora_dir) if config.lora_dir else config.model_cache_dir / ADAPTERS
    bundled = (BUNDLED,) if DEMO_ID in {config.model_id, *config.models} else ()
    return AdapterCatalog(folder, folder / EMBEDDINGS, *bundled)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _hashed(entry: Entry, until: float) -> Hashes | None:
    whole, content = hashlib.sha256(), hashlib.sha256()
    with entry.stamp.path.open("rb") as file:
        begin = file.read(LENGTH)
        head = begin + file.read(int.from_bytes(begin, "little"))
        whole.update(head)
        while chunk := file.read(CHUNK):
            whole.update(chunk)
            content.update(chunk)
            if time.monotonic() > until:
                return None
    told = entry.header.told_hash if entry.header else ""
    short = told if HEX.fullmatch(told) else content.hexdigest()
    if entry.kind is Kind.EMBEDDING:
        short = whole.hexdigest()
    return Hashes(sha256=whole.hexdigest(), short=short[:SHORT])
