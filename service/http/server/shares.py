"""Limits on the number of things that each client holds."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ServiceError


class Shares:
    """Counts by name, with a limit for each; names without a count take no memory."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, name: str) -> bool:
        """Take one for ``name``; return False at its limit."""
        if self._held[name] >= self.most:
            return False
        self._held[name] += 1
        return True

    def give_back(self, name: str) -> None:
        """Give one of ``name`` back."""
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]

    @contextmanager
    def one(self, name: str, error: ServiceError) -> Iterator[None]:
        """Hold one for ``name``, or raise ``error``."""
        if not self.take(name):
            raise error
        try:
            yield
        finally:
            self.give_back(name)
