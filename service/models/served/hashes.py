"""Hashes that other tools know models by, read in the background and kept in a file.

The hash of a model is the SHA-256 of its file, as AUTOMATIC1111 and Civitai have it. A folder in
diffusers' layout has no such file: there it is that of the weights of its denoiser, which tell
models of one family apart, and whose SHA-256 the hub shows.
"""

import hashlib
import json
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog

from service.errors import Overloaded, ServiceError
from service.models import weights
from service.models.catalog import resolve
from service.models.served.catalog import ModelCatalog
from service.models.source import Source
from service.system.executors import HASHES

log = structlog.get_logger(__name__)

FILE: Final = ".hashes.json"
"""Its name in MODEL_CACHE_DIR."""

SHORT: Final = 10
"""Hex digits of AUTOMATIC1111's short form."""

DENOISER: Final = "unet"
CHUNK: Final = 2**22
LEAST_PRIORITY: Final = 19
SHA256: Final = re.compile(r"[0-9a-f]{64}")

Submit = Callable[[str, str, Callable[[], None]], object]


class ModelHashes:
    """The hashes of the models of a catalogue, as far as they are known; nothing waits for them."""

    def __init__(
        self, models: ModelCatalog, cache_dir: Path, submit: Submit = HASHES.submit
    ) -> None:
        """Set up; ``submit`` lets a call run on another thread."""
        self._models, self._cache_dir, self._submit = models, cache_dir, submit
        self._known: dict[str, str] = {}
        self._asked: set[str] = set()

    def known(self, key: str) -> str:
        """Return the SHA-256 of a model by its key in the catalogue; empty if it is not known."""
        return self._known.get(key, "")

    def ask(self, key: str) -> str:
        """Return the short hash of a model; empty if it is not known, and then it is read."""
        if key not in self._asked:
            self._asked.add(key)
            with suppress(Overloaded, RuntimeError):  # Without a thread there is no hash.
                self._submit("", "", lambda: self._find(key, read))
        return self.known(key)[:SHORT]

    def recall(self) -> None:
        """Take up what the file of hashes has of all models, on another thread."""
        with suppress(Overloaded, RuntimeError):
            self._submit("", "", self._recall)

    def _recall(self) -> None:
        for each in self._models.entries:
            self._find(self._models.key(each.id), recorded)

    def _find(self, key: str, how: Callable[[Source, Path], str]) -> None:
        model = self._models[key]
        try:
            source = model.source
            if source is not None and source.path is None:  # It may have been fetched by now.
                source = resolve(source.id, self._cache_dir)
            if source is not None and (found := how(source, self._cache_dir)):
                self._known[key] = found
        except (OSError, ServiceError) as error:
            log.warning("model_hash_failed", model=model.id, reason=str(error))


def recorded(source: Source, cache_dir: Path) -> str:
    """Return the SHA-256 of a model if it need not be read for it; else empty.

    Raises:
        OSError, ModelError: its files cannot be read.

    """
    if not (paths := _files(source)):
        return ""
    blob = paths[0].resolve()
    if len(paths) == 1 and blob.parent.name == "blobs" and SHA256.fullmatch(blob.name):
        return blob.name  # The hub's cache names files by their checksums.
    entry = _load(cache_dir).get(str(paths[0].resolve()))
    if not isinstance(entry, dict) or entry.get("files") != _stamp(paths):
        return ""
    return str(entry.get("sha256", ""))


def read(source: Source, cache_dir: Path) -> str:
    """Return the SHA-256 of a model, and keep it; empty for a model that is not here.

    Raises:
        OSError, ModelError: its files cannot be read.

    """
    paths = _files(source)
    if not paths or (known := recorded(source, cache_dir)):
        return known if paths else ""
    stamp = _stamp(paths)
    found = _sha256(paths)
    kept = {path: entry for path, entry in _load(cache_dir).items() if Path(path).exists()}
    kept[str(paths[0].resolve())] = {"files": stamp, "sha256": found}
    # A cache that cannot be written is read again at the next start.
    with suppress(OSError):
        _save(cache_dir, kept)
    return found


def _files(source: Source) -> list[Path]:
    if source.path is None:
        return []
    return (
        [source.path] if source.single_file else weights.part_files(source.path / DENOISER, False)
    )


def _stamp(paths: Iterable[Path]) -> list[list[int]]:
    return [[status.st_size, status.st_mtime_ns] for status in map(os.stat, paths)]


def _sha256(paths: Iterable[Path]) -> str:
    if sys.platform == "linux":  # Elsewhere this would slow down more than the thread.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _load(cache_dir: Path) -> dict[str, Any]:
    try:
        content = json.loads((cache_dir / FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _save(cache_dir: Path, content: dict[str, Any]) -> None:
    part = cache_dir / f"{FILE}.{uuid.uuid4().hex}"
    try:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
        part.replace(cache_dir / FILE)
    finally:
        part.unlink(missing_ok=True)
