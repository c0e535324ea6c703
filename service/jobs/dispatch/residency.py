"""Models in the memory of one engine, and the one that it loads next.

Models are known by their keys (``ModelCatalog.key``): empty for the default one.
"""

import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from service.core.events import ModelLoaded, ModelsResident, ModelUnloaded, UnloadReason
from service.core.model import ModelInfo
from service.jobs.queue.estimate import LOAD_SECONDS
from service.models.served.catalog import DEFAULT, ModelCatalog

PATIENCE: Final = 4.0
"""Loads that a model keeps its memory for, as long as it has work, when another one waits for it.

With it a switch costs a fifth of the time at most. docs/decisions/012-several-models.md has the
figures of other values.
"""

LINGER: Final = 0.25
"""Loads that a model without work keeps its memory for: its clients may be about to ask again."""

FAILURE_SECONDS: Final = 60.0
"""Requests for a model that could not be loaded are refused for so long; then it is tried again."""

RETRY_SECONDS: Final = 10.0
"""Until a model is asked for again whose load failed for a cause that may pass."""


class Residency:
    """What an engine said of models; the policy asks it what a load would cost.

    Times are ``time.monotonic`` seconds.
    """

    def __init__(self, models: ModelCatalog, *, max_attempts: int) -> None:
        self.loaded: set[str] = set()
        self.parked: frozenset[str] = frozenset()
        """In host memory only, next to a GPU."""
        self.wanted: str | None = None
        """Model that the engine was asked for and has not brought."""
        self.reading = False
        """Whether the engine has room for it and reads it."""
        self.infos: dict[str, ModelInfo] = {}
        """Every model that was loaded once."""
        self.used: dict[str, float] = {}
        """When each model in memory had a job last, or came."""
        self._models = models
        self._max_attempts = max_attempts
        self._came = -math.inf
        self._failures: dict[str, tuple[str, float]] = {}
        self._later: dict[str, float] = {}
        self._interrupted: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._bytes: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._room: float = math.inf
        """Bytes of models from which on one had to leave."""
        self._sum: float = 0.0
        """Bytes that the models would have taken when the last one was asked for."""
        self._evicted = False
        """Whether one left for it."""

    @property
    def holding(self) -> bool:
        """Whether nothing may start, so that the jobs in the way of a load run out."""
        return self.wanted is not None and not self.reading

    def begin(self, info: ModelInfo) -> None:
        """Note that the engine has started, which loads the default model."""
        self._came = time.monotonic()
        self._put(DEFAULT, info)
        self._seconds.setdefault(DEFAULT, info.load_seconds)

    def lose(self) -> str | None:
        """Forget what a dead engine had; return the model that ended every engine that read it."""
        guilty, self.wanted = self.wanted if self.reading else None, None
        self.reading = False
        self.loaded.clear()
        self.used.clear()
        self.parked, self._bytes = frozenset(), {}
        if guilty is None:
            return None
        self._interrupted[guilty] += 1
        if self._interrupted[guilty] < self._max_attempts:
            return None
        del self._interrupted[guilty]
        return guilty

    def ask(self, key: str) -> None:
        """Note that the engine was asked for a model."""
        self.wanted, self.reading = key, False
        self._sum, self._evicted = self._needed(key), False

    def came(self, event: ModelLoaded, key: str) -> None:
        """Note that a model is in memory."""
        self._came = time.monotonic()
        if self.wanted == key:
            self.wanted, self.reading = None, False
            if self._sum >= self._room and not self._evicted:
                self._room = math.inf  # By now it fits next to all that was there.
        if event.seconds > 0:
            self._seconds[key] = event.seconds
        del self._interrupted[key]
        self._failures.pop(key, None)
        self._put(key, event.model)

    def left(self, event: ModelUnloaded, key: str) -> None:
        """Note that a model takes no more jobs."""
        self.loaded.discard(key)
        self.used.pop(key, None)
        self._bytes.pop(key, None)
        if self.wanted is not None and event.reason == UnloadReason.MEMORY:
            self._room, self._evicted = min(self._room, self._sum), True

    def failed(self, key: str, detail: str, *, transient: bool) -> None:
        """Note that a model could not be loaded."""
        if self.wanted == key:
            self.wanted, self.reading = None, False
        now = time.monotonic()
        if transient:
            self._later[key] = now + RETRY_SECONDS
        else:
            self._failures[key] = detail, now + FAILURE_SECONDS

    def resident(self, event: ModelsResident, keys: Mapping[str, str]) -> None:
        """Note what models take; ``keys`` are those of the names in the event."""
        self.parked = frozenset(keys[name] for name in event.host) - self.loaded
        self._bytes = {
            keys[name]: size
            for held in (event.host, event.device)
            for name, size in held.items()
            if keys[name] in self.loaded
        }
        self._sizes |= self._bytes

    def failure(self, key: str) -> str:
        """Return why a model cannot be loaded; empty if it may."""
        detail, until = self._failures.get(key, ("", 0.0))
        return detail if time.monotonic() < until else ""

    def load_seconds(self, key: str) -> float:
        """Return about how long a model takes to load: what it took last, or a guess."""
        return self._seconds.get(key, LOAD_SECONDS)

    def evicts(self, key: str) -> bool:
        """Whether another model will have to leave for this one, as far as was seen before."""
        return self._needed(key) >= self._room

    def wait_seconds(self, key: str, *, busy: bool, idle_since: float) -> float:
        """Return in how many seconds a model may be asked for; 0 for now.

        ``busy`` is whether a model in memory has work; without any the engine has been idle
        since ``idle_since``.
        """
        now = time.monotonic()
        later = self._later.get(key, now) - now
        if not self.evicts(key):
            return max(0.0, later)
        keep = self._came + PATIENCE * self.load_seconds(key)
        if not busy:
            keep = min(keep, idle_since + LINGER * self.load_seconds(key))
        return max(0.0, later, keep - now)

    def _put(self, key: str, info: ModelInfo) -> None:
        self.loaded.add(key)
        self.parked -= {key}
        self.infos[key] = info
        self.used[key] = time.monotonic()

    def _needed(self, key: str) -> float:
        """Return the bytes of the models in memory and of this one."""
        others = sum(size for name, size in self._bytes.items() if name != key)
        return others + self._sizes.get(key, self._models[key].size or 0)
