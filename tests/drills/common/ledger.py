"""The one ledger of all drills: what clients asked for, and all that they were told of it."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.support.load_client import Client

FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})
SETTLE_SECONDS: Final = 60.0
LEAST_SECONDS: Final = 1.0  # Below it no difference of a Retry-After counts: it has whole seconds.
Jobs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Order:
    """One request for images that one client wants."""

    body: Mapping[str, Any]
    number: int = 0
    key: str = ""  # The Idempotency-Key of every request for it.
    synchronous: bool = False  # Asked for with ``POST /generate``; the image comes in the answer.
    cancel_after: float | None = None
    """Seconds after its acceptance in which the client changes its mind."""

    @property
    def size(self) -> tuple[int, int]:
        drawn = self.body.get("hires", self.body)
        return drawn["width"], drawn["height"]

    @property
    def image(self) -> dict[str, Any]:
        """The part of the body that decides how the image looks."""
        return {k: v for k, v in self.body.items() if k not in ("webhook", "timeout_seconds")}

    def but(self, **fields: Any) -> "Order":
        """Return the same order with other fields in its body."""
        return replace(self, body={**self.body, **fields})


@dataclass(frozen=True, kw_only=True)
class End:
    """How an order ended, as it was told at one time."""

    state: str
    reason: str = ""
    finished_at: float | None = None


@dataclass(kw_only=True)
class Account:
    """One order that may not be lost, from its client's side; ``time.time`` seconds."""

    order: Order
    ids: list[str] = field(default_factory=list)
    """Every id that was told for it, each once; there must be one at most."""
    asked: float = 0.0  # When it was asked for first; the service may have had it since then.
    accepted: float | None = None
    ended: float | None = None  # When the client first heard of an end.
    ends: list[End] = field(default_factory=list)
    """Every end that was told; there must be one, told again and again."""
    images: list[str] = field(default_factory=list)  # Digest of the image each time it was fetched.
    png: bytes = field(default=b"", repr=False)
    faults: list[str] = field(default_factory=list)
    """Answers that must not come: an accepted job unknown, an image that is none."""
    cancel_asked: bool = False
    refusals: int = 0
    retries: int = 0  # Requests sent again because there was no answer.
    attempts: int = 0  # How often the service says that the job was started.

    def __str__(self) -> str:
        return f"order {self.order.number} ({', '.join(self.ids) or self.order.key})"

    def named(self, job_id: str) -> None:
        if job_id not in self.ids:
            self.ids.append(job_id)

    def told(self, end: End) -> None:
        self.ends.append(end)
        self.ended = self.ended or time.time()


@dataclass(kw_only=True)
class Visit:
    """One client that may be refused, from its own side; ``time.monotonic`` seconds."""

    key: str
    body: Mapping[str, Any]
    deadline: float
    refused: list[float] = field(default_factory=list)  # When each refusal came.
    told: list[float] = field(default_factory=list)  # The Retry-After of each.
    admitted: float | None = None  # When the request that was not refused was sent.
    answered: float | None = None
    status: int = 0
    flaw: str = ""  # An answer that must not come.
    left: bool = False
    """Whether it was told a time after the end of the drill, and did not wait for it."""

    @property
    def ratio(self) -> float | None:
        """Seconds until it was let in by those that it was told at first; None: never."""
        if not self.told or self.admitted is None:
            return None
        waited = max(self.admitted - self.refused[0], LEAST_SECONDS)
        return waited / max(self.told[0], LEAST_SECONDS)

    def due(self, end: float) -> bool:
        """Whether the first time that it was told lies before ``end``."""
        return bool(self.told) and self.refused[0] + self.told[0] <= end

    @property
    def taken(self) -> float:
        """Seconds from the request that was not refused to its answer."""
        return (self.answered or 0.0) - (self.admitted or 0.0)


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One delivery of a webhook, as it came."""

    delivery: str  # Its id, which is the same in every attempt.
    job: str
    state: str
    genuine: bool  # Whether its signature is right.
    refused: bool = False  # Whether the receiver answered that it was not ready, or not at all.


@dataclass(kw_only=True)
class Kill:
    """The end of an engine, or of a service with its engine."""

    at: float
    blow: str = ""  # Its kind.
    ready_after: float | None = None
    """Seconds that the service then could not work; None where the next kill came first."""


@dataclass(kw_only=True)
class Ledger:
    """All accounts, and what else was seen from outside the service."""

    max_attempts: int
    accounts: dict[int, Account] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    listed: Mapping[str, int | None] = field(default_factory=dict)
    """Ids of all jobs that the service knows in the end, with their images' seeds if known."""
    inputs: set[str] = field(default_factory=set)
    """Files of input images at the end."""
    left: set[str] = field(default_factory=set)
    """Those of them that were there when the clients had deleted their jobs."""
    calm: dict[int, str] = field(default_factory=dict)
    """For a sample, how the image differs from that of an undisturbed service; empty: not."""
    seconds: float = 0.0  # That the drill took.
    unsent: int = 0
    """Orders that are missing to the number that was wished for, as the time was over."""

    def open(self, order: Order) -> Account:
        account = self.accounts[order.number] = Account(order=order, asked=time.time())
        return account

    @property
    def taken(self) -> list[Account]:
        """The orders that were accepted."""
        return [account for account in self.accounts.values() if account.accepted is not None]

    def counts(self) -> Counter[str]:
        """Return how many accepted orders ended in which way."""
        return Counter(a.ends[-1].state if a.ends else "never final" for a in self.taken)

    def reasons(self) -> Counter[str]:
        """Return how many failed for which reason."""
        return Counter(a.ends[-1].reason for a in self.taken if a.ends and a.ends[-1].reason)

    def own(self) -> dict[str, Account]:
        """Return the accounts by the ids that were told."""
        return {job_id: account for account in self.accounts.values() for job_id in account.ids}


async def settled(client: Client, ids: Collection[str]) -> Jobs:
    """Return a key's jobs as they are when all of ``ids`` are over, or after a minute."""
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        jobs = await client.listed()
        over = all(jobs.get(job, {}).get("state") in FINAL for job in ids)
        if over or time.monotonic() > end:
            return jobs
        await asyncio.sleep(1)


def lost(jobs: Jobs, ids: Collection[str], states: Collection[str]) -> Iterator[str]:
    """Yield what became of each accepted job that is not in one of the states it must end in."""
    for job in ids:
        state = jobs.get(job, {}).get("state", "unknown")
        if state not in states:
            error = jobs.get(job, {}).get("error") or {}
            yield " ".join(filter(None, (job, state, error.get("code"))))


def delays(jobs: Jobs, ids: Collection[str], came: Mapping[str, float]) -> list[float]:
    """Return the seconds from the end of each job until its webhook came."""
    return [
        max(came[job] - jobs[job]["finished_at"], 0.0)
        if job in came and jobs.get(job, {}).get("finished_at")
        else math.inf
        for job in ids
    ]
