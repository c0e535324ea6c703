"""Waiting items served in turns: first by their owner, then by their group inside the owner."""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Places that a line hands out."""

    most: int
    """In all."""
    each: int
    """To one owner."""
    alike: int
    """To one group of an owner."""
    spare: int = 0
    """Beyond ``most``, one each for owners that hold none: other owners never delay these."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Place(Generic[T]):
    """An item whose turn it is; give it back to the line when it is done."""

    owner: str
    group: str
    item: T


@dataclass(kw_only=True, eq=False)
class _Owner(Generic[T]):
    waiting: OrderedDict[str, deque[T]] = field(default_factory=OrderedDict)
    """By group, the group whose turn is next first; no line in it is empty."""
    held: Counter[str] = field(default_factory=Counter)
    """Places by group."""
    places: int = 0


class FairLine(Generic[T]):
    """Hands out a bounded number of places to owners in turns.

    It neither waits nor locks: whoever puts an item or gives a place back calls ``take`` until
    there is none.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._owners: OrderedDict[str, _Owner[T]] = OrderedDict()
        """Those that wait or hold a place, the one whose turn is next first."""
        self.held = 0
        """Places that are taken."""

    @property
    def waiting(self) -> int:
        """Items that have no place."""
        return sum(map(self.waiting_of, self._owners))

    def waiting_of(self, owner: str) -> int:
        """Return how many items of an owner have no place."""
        found = self._owners.get(owner)
        return sum(map(len, found.waiting.values())) if found else 0

    def put(self, owner: str, group: str, item: T) -> None:
        """Let an item wait as the last of its group."""
        of_owner = self._owners.setdefault(owner, _Owner())
        of_owner.waiting.setdefault(group, deque()).append(item)

    def take(self) -> Place[T] | None:
        """Return the next item that may have a place, and count it as taken."""
        limits = self._limits
        if self.held >= limits.most + limits.spare:
            return None
        for owner, found in self._owners.items():
            if found.places >= (limits.each if self.held < limits.most else 1):
                continue
            for group, line in found.waiting.items():
                if found.held[group] < limits.alike:
                    return self._taken(owner, found, group, line)
        return None

    def give_back(self, place: Place[T]) -> None:
        """Free the place of an item."""
        found = self._owners[place.owner]
        found.held[place.group] -= 1
        if not found.held[place.group]:
            del found.held[place.group]
        found.places -= 1
        self.held -= 1
        self._forget(place.owner)

    def discard(self, owner: str, item: T) -> None:
        """Take an item out that waits no longer; one that has a place keeps it."""
        found = self._owners.get(owner)
        for group, line in found.waiting.items() if found else ():
            if item in line:
                line.remove(item)
                if not line:
                    del self._owners[owner].waiting[group]
                break
        self._forget(owner)

    def regroup(self, owner: str, group: str, other: str) -> None:
        """Let what waits in one group of an owner wait in another."""
        found = self._owners.get(owner)
        line = found.waiting.pop(group, None) if found else None
        if found and line:
            found.waiting.setdefault(other, deque()).extend(line)

    def _taken(self, owner: str, found: _Owner[T], group: str, line: deque[T]) -> Place[T]:
        item = line.popleft()
        found.waiting.move_to_end(group)
        if not line:
            del found.waiting[group]
        found.held[group] += 1
        found.places += 1
        self.held += 1
        self._owners.move_to_end(owner)
        return Place(owner=owner, group=group, item=item)

    def _forget(self, owner: str) -> None:
        found = self._owners.get(owner)
        if found and not found.places and not found.waiting:
            del self._owners[owner]
