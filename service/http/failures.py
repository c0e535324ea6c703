"""Who sent wrong keys, and how long it has to wait."""

import math
import time
from collections import OrderedDict
from typing import Final

from service.jobs.allowance import Bucket, Clock

MOST_CLIENTS: Final = 4096
"""Remembered at a time; whoever has been quiet for longest is forgotten first."""

MOST_FRIENDS: Final = 4096


class Failures:
    """Counts wrong keys by client in a bounded table; ``per_minute`` 0 counts none.

    A client that has to wait is told so for right and wrong keys alike, or it would go on
    guessing at full speed. But a key that was right from the same address before still
    opens: one broken script behind a shared address locks nobody out.
    """

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._friends: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, client: str, name: str | None) -> int:
        """Return how many seconds ``client`` has to wait with a key of ``name``, mostly 0."""
        bucket = self._buckets.get(client)
        if bucket is None or (name is not None and (client, name) in self._friends):
            return 0
        return math.ceil(bucket.wait(self._clock()))

    def failed(self, client: str) -> bool:
        """Count a wrong key; return whether the client has to wait from now on."""
        if not self._per_minute:
            return False
        now = self._clock()
        bucket = self._buckets.setdefault(
            client, Bucket(self._per_minute, self._per_minute / 60, now)
        )
        self._buckets.move_to_end(client)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        bucket.take(now)
        return bucket.wait(now) > 0

    def succeeded(self, client: str, name: str) -> None:
        """Remember that a key was right."""
        self._friends[client, name] = None
        self._friends.move_to_end((client, name))
        if len(self._friends) > MOST_FRIENDS:
            self._friends.popitem(last=False)
