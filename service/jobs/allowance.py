"""What each key may still ask for: requests in a minute, and pictures in a day.

A key is a name here. Requests are counted by a token bucket, so that a client may send a few
at once and is held to the rate after that. Pictures are counted over the last 24 hours and not
by calendar day: no rush at midnight, no double portion around it, no time zone.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from service.errors import QuotaExceeded, RateLimited

DAY_SECONDS: Final = 86_400.0
GRAIN_SECONDS: Final = 60.0
"""Charges of one minute are kept together: a key takes 1,441 entries at most."""

ROUNDING: Final = 1e-6
"""Of a token: who waits as long as it was told is not sent away for the last digit."""

UNPAID: Final = frozenset({"timed_out", "client_gone", "cancelled"})
"""Outcomes that give pictures back only if no work was done for them.

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
    """Pictures that were charged within one minute."""

    began: float
    images: int = 0

    @property
    def leaves(self) -> float:
        """When none of them counts any more."""
        return self.began + GRAIN_SECONDS + DAY_SECONDS


@dataclass(kw_only=True, eq=False)
class Charge:
    """Pictures that one job was charged; it is settled once, whoever comes first."""

    images: int
    slot: Slot = field(repr=False)
    kept: Callable[[], None] | None = field(default=None, repr=False)
    """Called when the pictures are paid for."""
    with_job: bool = False
    """What is paid for is written down with the end of the job, and not by ``kept``."""
    owed: int = 0
    """Pictures paid for that the end of the job has to write down."""
    settled: bool = False

    def keep(self) -> None:
        """End with the pictures paid for."""
        if self.settled:
            return
        self.settled = True
        if self.kept is not None and self.with_job:
            self.owed = self.images
        elif self.kept is not None:
            self.kept()

    def give_back(self) -> None:
        """End with the pictures given back."""
        if not self.settled:
            self.settled = True
            self.slot.images -= self.images

    def settle(self, outcome: str, *, started: bool) -> None:
        """End as a job ended; ``started`` says whether any work was done for it."""
        if outcome == "succeeded" or (outcome in UNPAID and started):
            self.keep()
        else:
            self.give_back()


class Used:
    """Pictures of one key over the last day."""

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque()

    def total(self, now: float) -> int:
        """Return the pictures that count."""
        while self._slots and self._slots[0].leaves <= now:
            self._slots.popleft()
        return sum(slot.images for slot in self._slots)

    def wait(self, now: float, excess: int) -> float:
        """Return the seconds until ``excess`` pictures of these count no more."""
        for slot in self._slots:
            excess -= slot.images
            if excess <= 0:
                return slot.leaves - now
        return 0.0

    def add(self, at: float, images: int) -> Charge:
        """Count pictures from ``at``, which is not before what was added last."""
        if not self._slots or at >= self._slots[-1].began + GRAIN_SECONDS:
            self._slots.append(Slot(began=at))
        self._slots[-1].images += images
        return Charge(images=images, slot=self._slots[-1])


class Allowance:
    """Holds every key to its limits. The state of a process: a restart forgets requests.

    Wired so: ``take`` when a request for pictures arrives, ``charge`` when it is accepted,
    the ``Charge`` on the job, which settles it at its end. After a restart ``restore`` takes
    what a store remembers, the oldest first (``service.jobs.usage``).
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.kept: Callable[[str, int, float], None] = _nobody
        """Hears of the pictures that a key with a quota paid for, and how many seconds ago."""
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
                f"{limits.per_minute:g} requests in a minute are agreed for {name}, "
                f"{limits.burst} at once; retry in {seconds} s.",
                retry_after=seconds,
            )
        bucket.take(self._clock())

    def charge(self, name: str, images: int, limits: Limits) -> Charge:
        """Charge pictures.

        Raises:
            QuotaExceeded: with the seconds after which they are allowed, if ever.

        """
        now, used = self._clock(), self._used.setdefault(name, Used())
        total, limit = used.total(now), limits.images_per_day
        if limit and images > limit:
            raise QuotaExceeded(
                f"{limit} pictures in 24 hours are agreed for {name}; ask for fewer at once."
            )
        if limit and total + images > limit:
            seconds = math.ceil(used.wait(now, total + images - limit))
            raise QuotaExceeded(
                f"{limit} pictures in 24 hours are agreed for {name}, and {total} are used; "
                f"retry in {seconds} s.",
                retry_after=seconds,
            )
        charged = used.add(now, images)
        if limit:
            self._tell(charged, name, now)
        return charged

    def restore(self, name: str, images: int, age_seconds: float) -> Charge:
        """Count pictures that were charged before a restart; call it with the oldest first."""
        at = self._clock() - age_seconds
        charged = self._used.setdefault(name, Used()).add(at, images)
        self._tell(charged, name, at)
        return charged

    def _tell(self, charged: Charge, name: str, at: float) -> None:
        charged.kept = lambda: self.kept(name, charged.images, self._clock() - at)

    def requests_left(self, name: str, limits: Limits) -> Left | None:
        """Return how many requests are allowed at once now; None without a limit."""
        bucket = self._bucket(name, limits)
        if bucket is None:
            return None
        left = bucket.left(self._clock())
        seconds = (bucket.capacity - left) / bucket.per_second
        return Left(limit=limits.burst, remaining=int(left), reset_seconds=math.ceil(seconds))

    def images_left(self, name: str, limits: Limits) -> Left | None:
        """Return how many pictures are allowed now; None without a limit."""
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
        """Forget the keys that are gone."""
        known = set(names)
        self._buckets = {name: b for name, b in self._buckets.items() if name in known}
        self._used = {name: u for name, u in self._used.items() if name in known}

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
