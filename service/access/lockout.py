"""Who sent wrong keys, and how long it has to wait."""

import math
import time
from collections import OrderedDict
from typing import Final

from service.access.allowance import Bucket, Clock

MOST_CLIENTS: Final = 4096
"""Remembered at a time; whoever has been quiet for longest is forgotten first."""

MOST_FRIENDS: Final = 4096

Source = tuple[str, str]
"""The address of a client, and the route whose secret it guesses; empty for API keys."""


class Lockout:
    """Counts wrong keys by source in a bounded table; ``per_minute`` 0 counts none.

    A source that has to wait is told so for right and wrong keys alike, or it would go on
    guessing at full speed. But a key that was right from the same address before still
    opens: one broken script behind a shared address locks nobody out.
    """

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[Source, Bucket] = OrderedDict()
        self._friends: OrderedDict[tuple[Source, str], None] = OrderedDict()

    def wait(self, source: Source, name: str | None) -> int:
        """Return how many seconds ``source`` has to wait with a key of ``name``, mostly 0."""
        bucket = self._buckets.get(source)
        if bucket is None or (name is not None and (source, name) in self._friends):
            return 0
        return math.ceil(bucket.wait(self._clock()))

    def failed(self, source: Source, *, guesses: int = 1) -> bool:
        """Count wrong keys of one request; return whether the source has to wait from now on."""
        if not self._per_minute:
            return False
        now = self._clock()
        bucket = self._buckets.setdefault(
            source, Bucket(self._per_minute, self._per_minute / 60, now)
        )
        self._buckets.move_to_end(source)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        for _ in range(guesses):
            bucket.take(now)
        return bucket.wait(now) > 0

    def succeeded(self, source: Source, name: str) -> None:
        """Remember that a key was right."""
        self._friends[source, name] = None
        self._friends.move_to_end((source, name))
        if len(self._friends) > MOST_FRIENDS:
            self._friends.popitem(last=False)
