"""What each key may still ask for: requests in a minute, and images in a day.

A key is a name here. Requests are counted by a token bucket, so that a client may send a few
at once and is held to the rate after that. Images are counted over the last 24 hours and not
by calendar day: no rush at midnight, no double portion around it, no time zone.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from service.core.outcome import Outcome
from service.errors import QuotaExceeded, RateLimited

DAY_SECONDS: Final = 86_400.0
GRAIN_SECONDS: Final = 60.0
"""Charges of one minute are kept together: a key takes 1,441 entries at most."""

ROUNDING: Final = 1e-6
"""Of a token: who waits as long as it was told is not sent away for the last digit."""

UNPAID: Final = frozenset({Outcome.TIMED_OUT, Outcome.DISCONNECTED, Outcome.CANCELLED})
"""Outcomes that give images back only if no work was done for them.

A client could otherwise have the GPU work all day, and hang up before each last step.
"""

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is agreed with a key; 0 is no limit."""

    per_minute: float = 0
    burst: int = 1
    """Requests at once, after a pause."""
    images_per_day: int = 0


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is left of one limit."""

    limit: int
    remaining: int
    reset_seconds: int
    """Until all of it is there again, if nothing more is asked for."""


class Bucket:
    """Tokens that come back at a steady rate, up to ``capacity``."""

    def __init__(self, capacity: float, per_second: float, now: float) -> None:
        self.capacity = capacity
        self.per_second = per_second
        self._tokens = capacity
        self._at = now

    def left(self, now: float) -> float:
        """Return the tokens there are."""
        return min(self.capacity, self._tokens + (now - self._at) * self.per_second)

    def wait(self, now: float) -> float:
        """Return the seconds until there is a whole token, 0 if there is one."""
        missing = 1 - self.left(now)
        return missing / self.per_second if missing > ROUNDING else 0.0

    def take(self, now: float) -> None:
        """Take one token, or what is left of one."""
        self._tokens = max(0.0, self.left(now) - 1)
        self._at = now

    def adapt(self, capacity: float, per_second: float, now: float) -> None:
        """Go on with other limits."""
        self._tokens, self._at = min(capacity, self.left(now)), now
        self.capacity, self.per_second = capacity, per_second


@dataclass(kw_only=True)
class Slot:
    """Images that were charged within one minute."""

    began: float
    images: int = 0

    @property
    def leaves(self) -> float:
        """When none of them counts any more."""
        return self.began + GRAIN_SECONDS + DAY_SECONDS


@dataclass(kw_only=True, eq=False)
class Charge:
    """Images that one job was charged; it is settled once, whoever comes first."""

    images: int
    slot: Slot = field(repr=False)
    kept: Callable[[], None] | None = field(default=None, repr=False)
    """Called when the images are paid for."""
    with_job: bool = False
    """What is paid for is written down with the end of the job, and not by ``kept``."""
    owed: int = 0
    """Images paid for that the end of the job has to write down."""
    settled: bool = False

    def keep(self) -> None:
        """End with the images paid for."""
        if self.settled:
            return
        self.settled = True
        if self.kept is not None and self.with_job:
            self.owed = self.images
        elif self.kept is not None:
            self.kept()

    def give_back(self) -> None:
        """End with the images given back."""
        if not self.settled:
            self.settled = True
            self.slot.images -= self.images

    def settle(self, outcome: Outcome, *, started: bool) -> None:
        """End as a job ended; ``started`` says whether any work was done for it."""
        if outcome is Outcome.SUCCEEDED or (outcome in UNPAID and started):
            self.keep()
        else:
            self.give_back()


class Used:
    """Images of one key over the last day."""

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque()

    def total(self, now: float) -> int:
        """Return the images that count."""
        while self._slots and self._slots[0].leaves <= now:
            self._slots.popleft()
        return sum(slot.images for slot in self._slots)

    def wait(self, now: float, excess: int) -> float:
        """Return the seconds until ``excess`` images of these count no more."""
        for slot in self._slots:
            excess -= slot.images
            if excess <= 0:
                return slot.leaves - now
        return 0.0

    def add(self, at: float, images: int) -> Charge:
        """Count images from ``at``, which is not before what was added last."""
        if not self._slots or at >= self._slots[-1].began + GRAIN_SECONDS:
            self._slots.append(Slot(began=at))
        self._slots[-1].images += images
        return Charge(images=images, slot=self._slots[-1])


class Allowance:
    """Holds every key to its limits. The state of a process: a restart forgets requests.

    Wired so: ``take`` when a request for images arrives, ``charge`` when it is accepted,
    the ``Charge`` on the job, which settles it at its end. After a restart ``restore`` takes
    what a store remembers, the oldest first (``service.jobs.durable.quota_ledger``).
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.kept: Callable[[str, int, float], None] = _nobody
        """Hears of the images that a key paid for, and how many seconds ago.

        With or without a quota: a key may be given one while its images still count.
        """
        self._buckets: dict[str, Bucket] = {}
        self._used: dict[str, Used] = {}

    def take(self, name: str, limits: Limits) -> None:
        """Count one request.

        Raises:
            RateLimited: with the seconds after which one is allowed.

        """
        bucket = self._bucket(name, limits)
        if bucket is None:
            return
        if seconds := math.ceil(bucket.wait(self._clock())):
            raise RateLimited(
                f"{name} may send {limits.per_minute:g} requests a minute, {limits.burst} at "
                f"once; retry in {seconds} s.",
                retry_after=seconds,
            )
        bucket.take(self._clock())

    def charge(self, name: str, images: int, limits: Limits) -> Charge:
        """Charge images.

        Raises:
            QuotaExceeded: with the seconds after which they are allowed, if ever.

        """
        now, used = self._clock(), self._used.setdefault(name, Used())
        total, limit = used.total(now), limits.images_per_day
        if limit and images > limit:
            raise QuotaExceeded(
                f"{name} may make {limit} images in 24 hours; request fewer at once."
            )
        if limit and total + images > limit:
            seconds = math.ceil(used.wait(now, total + images - limit))
            raise QuotaExceeded(
                f"{name} may make {limit} images in 24 hours and has used {total}; "
                f"retry in {seconds} s.",
                retry_after=seconds,
            )
        return self._add(name, images, now)

    def restore(self, name: str, images: int, age_seconds: float) -> Charge:
        """Count images that were charged before a restart; call it with the oldest first."""
        return self._add(name, images, self._clock() - age_seconds)

    def _add(self, name: str, images: int, at: float) -> Charge:
        charged = self._used.setdefault(name, Used()).add(at, images)
        charged.kept = lambda: self.kept(name, images, self._clock() - at)
        return charged

    def requests_left(self, name: str, limits: Limits) -> Left | None:
        """Return how many requests are allowed at once now; None without a limit."""
        bucket = self._bucket(name, limits)
        if bucket is None:
            return None
        left = bucket.left(self._clock())
        seconds = (bucket.capacity - left) / bucket.per_second
        return Left(limit=limits.burst, remaining=int(left), reset_seconds=math.ceil(seconds))

    def images_left(self, name: str, limits: Limits) -> Left | None:
        """Return how many images are allowed now; None without a limit."""
        limit = limits.images_per_day
        if not limit:
            return None
        now, used = self._clock(), self._used.setdefault(name, Used())
        total = used.total(now)
        return Left(
            limit=limit,
            remaining=max(0, limit - total),
            reset_seconds=math.ceil(used.wait(now, total)) if total else 0,
        )

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget the keys that are gone, except what would count against one that comes back."""
        known, now = set(names), self._clock()
        self._buckets = {
            name: bucket
            for name, bucket in self._buckets.items()
            if name in known or bucket.left(now) < bucket.capacity
        }
        self._used = {
            name: used for name, used in self._used.items() if name in known or used.total(now)
        }

    def _bucket(self, name: str, limits: Limits) -> Bucket | None:
        if not limits.per_minute:
            return None
        now, per_second = self._clock(), limits.per_minute / 60
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(limits.burst, per_second, now)
        elif (bucket.capacity, bucket.per_second) != (limits.burst, per_second):
            bucket.adapt(limits.burst, per_second, now)
        return bucket


def _nobody(name: str, images: int, age_seconds: float) -> None:
    """Keep nothing: a service without a folder forgets quotas when it ends."""
