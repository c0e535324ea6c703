"""What the clients know: each order, and everything that they were told about it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scripts.chaos_drill.orders import Order

POISON = "engine_crashed"
"""The reason of a job that is given up because engines or services ended with it."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How an order ended, as it was told at one time."""

    state: str
    reason: str = ""
    finished_at: float | None = None


@dataclass(kw_only=True)
class Account:
    """One order from its client's side; times are ``time.time`` seconds."""

    order: Order
    ids: list[str] = field(default_factory=list)
    """Every id that was told for it, each once; there must be one at most."""
    asked: float = 0.0
    """When it was asked for first; the service may have had it since then."""
    accepted: float | None = None
    ended: float | None = None
    """When the client first heard of an end."""
    ends: list[End] = field(default_factory=list)
    """Every end that was told; there must be one, told again and again."""
    pictures: list[str] = field(default_factory=list)
    """Digest of the picture each time it was fetched."""
    png: bytes = field(default=b"", repr=False)
    faults: list[str] = field(default_factory=list)
    """Answers that must not come: an accepted job unknown, a picture that is none."""
    cancel_asked: bool = False
    refusals: int = 0
    retries: int = 0
    """Requests sent again because there was no answer."""
    attempts: int = 0
    """How often the service says that the job was started."""

    def named(self, job_id: str) -> None:
        """Note the id that stands for it."""
        if job_id not in self.ids:
            self.ids.append(job_id)

    def told(self, end: End, now: float) -> None:
        """Note an end."""
        self.ends.append(end)
        self.ended = self.ended or now


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One delivery of a webhook, as it came."""

    delivery: str
    """Its id, which is the same in every attempt."""
    job: str
    state: str
    genuine: bool
    """Whether its signature is right."""
    refused: bool = False
    """Whether the receiver answered that it was not ready, or not at all."""


@dataclass(kw_only=True)
class Ledger:
    """All accounts, and what else was seen from outside the service."""

    max_attempts: int
    accounts: dict[int, Account] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    """When an engine, or the service with its engine, was killed."""
    listed: Mapping[str, int | None] = field(default_factory=dict)
    """Ids of all jobs that the service knows in the end, with their pictures' seeds if known."""
    calm: dict[int, str] = field(default_factory=dict)
    """For a sample, how the picture differs from that of an undisturbed service; empty: not."""

    def open(self, order: Order) -> Account:
        """Begin the account of an order."""
        account = self.accounts[order.number] = Account(order=order)
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


def seed_of(job: Mapping[str, Any]) -> int | None:
    """Return the seed of a job that the service lists, if it is over and has a picture."""
    metadata = job.get("metadata")
    return metadata["seed"] if metadata else None
