"""Who is first of requests with one idempotency key."""

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from weakref import WeakValueDictionary

from service.jobs.store.stored import StoredJob


class KeyLocks:
    """Lets one request after the other look for an earlier job and take its place.

    Only those with the same idempotency key of the same API key wait for each other: with a
    lock for all, a disk that answers after its busy timeout would keep each request for that
    long times those before it.
    """

    def __init__(self) -> None:
        # A lock is forgotten with the last request that waits for it.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def of(self, stored: StoredJob) -> AbstractAsyncContextManager[None]:
        """Return what a new job has to hold while it is looked up and written down."""
        if stored.idempotency_key is None:
            return nullcontext()
        return self._locks.setdefault((stored.owner, stored.idempotency_key), asyncio.Lock())
