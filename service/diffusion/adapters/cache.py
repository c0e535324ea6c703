"""Adapters in one memory, within a budget: those in use stay, of the others the last used.

The models of an engine share it. An adapter that was read for one model is of no use to another.
"""

import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from service.core.capacity import AdapterPlace
from service.diffusion.adapters.reading import Loaded
from service.models.adapters.catalog import Stamp


class Owner:
    """The model that adapters were read for, as the cache knows it."""

    def __init__(self, forget: Callable[[], None]) -> None:
        """Set up; ``forget``, a method, lets go of what was made of adapters that leave."""
        # The pool alone keeps a model in memory: a cache that all models share must not.
        self._forget = weakref.WeakMethod(forget)
        self.evictions = 0
        """Adapters of its own that left for others."""

    def forget(self) -> None:
        """Let go of what was made of adapters, which are about to leave."""
        if (method := self._forget()) is not None:
            method()


Key = tuple[Owner, Stamp]


class Cache:
    """Loaded adapters by model and state of their file, in at most ``budget`` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.first: Owner | None = None
        """Who waits for room: nobody else takes adapters into use before it has it."""
        self._held: OrderedDict[Key, Loaded] = OrderedDict()
        self._pins: Counter[Key] = Counter()

    @property
    def used(self) -> int:
        """Bytes of all that it holds."""
        return sum(each.size for each in self._held.values())

    @property
    def count(self) -> int:
        """Adapters that it holds."""
        return len(self._held)

    def get(self, key: Key) -> Loaded | None:
        """Return an adapter, which counts as used now."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, owner: Owner, loaded: Loaded) -> None:
        """Hold an adapter; whoever puts it has made room before."""
        self._held[owner, loaded.stamp] = loaded

    def pin(self, keys: Iterable[Key]) -> None:
        """Keep adapters until they are unpinned as often."""
        self._pins.update(keys)

    def unpin(self, keys: Iterable[Key]) -> None:
        """Let adapters be evicted again."""
        self._pins.subtract(keys)
        self._pins = +self._pins

    def make_room(self, size: int, keep: Iterable[Key] = ()) -> bool:
        """Evict what is unused until ``size`` more bytes fit; return whether they do.

        Nothing is evicted where it would not suffice; ``keep`` is about to be used.
        """
        kept = {*keep, *self._pins}
        fixed = sum(each.size for key, each in self._held.items() if key in kept)
        if fixed + size > self.budget:
            return False
        for key in [each for each in self._held if each not in kept]:
            if self.used + size <= self.budget:
                break
            self._evict(key)
        return True

    def evict_unused(self, owner: Owner | None = None) -> None:
        """Evict whatever is not pinned, or of one model alone."""
        for key in [each for each in self._held if each not in self._pins]:
            if owner is None or key[0] is owner:
                self._evict(key)

    def drop(self, owner: Owner) -> None:
        """Let go of all that was read for a model which is no more."""
        for key in [each for each in self._held if each[0] is owner]:
            del self._held[key]
        self._pins = Counter({key: n for key, n in self._pins.items() if key[0] is not owner})
        if self.first is owner:
            self.first = None

    def _evict(self, key: Key) -> None:
        key[0].forget()
        key[0].evictions += 1
        del self._held[key]


@dataclass(frozen=True, kw_only=True)
class AdapterMemory:
    """What adapters of all models may take, in bytes: in host memory, and on a GPU."""

    host: Cache
    device: Cache
    """Not used where models compute in host memory."""
    places: set[AdapterPlace] = field(default_factory=lambda: {AdapterPlace.HOST})

    def next_to(self, device: torch.device) -> Cache:
        """Return the memory from which a device uses adapters."""
        if device.type == "cpu":
            return self.host
        self.places.add(AdapterPlace.GPU)
        return self.device

    @property
    def held(self) -> dict[AdapterPlace, int]:
        """Bytes that adapters take, by where."""
        caches = {AdapterPlace.HOST: self.host, AdapterPlace.GPU: self.device}
        return {place: cache.used for place, cache in caches.items() if place in self.places}


def memory_of(*, host_budget: int, device_budget: int) -> AdapterMemory:
    """Return empty memories with these budgets in bytes."""
    return AdapterMemory(host=Cache(host_budget), device=Cache(device_budget))
