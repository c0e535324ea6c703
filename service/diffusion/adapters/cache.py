"""Adapters in one memory, within a budget: those in use stay, of the others the last used."""

from collections import Counter, OrderedDict
from collections.abc import Iterable

from service.diffusion.adapters.reading import Loaded
from service.models.adapters.catalog import Stamp


class Cache:
    """Loaded adapters by the state of their file, in at most ``budget`` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.evictions = 0
        self._held: OrderedDict[Stamp, Loaded] = OrderedDict()
        self._pins: Counter[Stamp] = Counter()

    @property
    def used(self) -> int:
        """Bytes of all that it holds."""
        return sum(each.size for each in self._held.values())

    @property
    def count(self) -> int:
        """Adapters that it holds."""
        return len(self._held)

    def get(self, stamp: Stamp) -> Loaded | None:
        """Return an adapter, which counts as used now."""
        if stamp in self._held:
            self._held.move_to_end(stamp)
        return self._held.get(stamp)

    def put(self, loaded: Loaded) -> None:
        """Hold an adapter; whoever puts it has made room before."""
        self._held[loaded.stamp] = loaded

    def pin(self, stamps: Iterable[Stamp]) -> None:
        """Keep adapters until they are unpinned as often."""
        self._pins.update(stamps)

    def unpin(self, stamps: Iterable[Stamp]) -> None:
        """Let adapters be evicted again."""
        self._pins.subtract(stamps)
        self._pins = +self._pins

    def make_room(self, size: int, keep: Iterable[Stamp] = ()) -> bool:
        """Evict what is unused until ``size`` more bytes fit; return whether they do.

        Nothing is evicted where it would not suffice; ``keep`` is about to be used.
        """
        kept = {*keep, *self._pins}
        fixed = sum(each.size for stamp, each in self._held.items() if stamp in kept)
        if fixed + size > self.budget:
            return False
        for stamp in [each for each in self._held if each not in kept]:
            if self.used + size <= self.budget:
                break
            del self._held[stamp]
            self.evictions += 1
        return True

    def evict_unused(self) -> int:
        """Evict whatever is not pinned; return how many adapters that were."""
        unused = [stamp for stamp in self._held if stamp not in self._pins]
        for stamp in unused:
            del self._held[stamp]
        self.evictions += len(unused)
        return len(unused)
