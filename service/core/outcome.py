"""How a job ended: one value for its metrics, log lines, spans, events and row; and its webhook."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from service.errors import Cancelled, Disconnected, RequestTimedOut, ServiceError, ShuttingDown


class Outcome(StrEnum):
    """How a job ended; set once, where it ends."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    """It was not finished by its deadline, waiting or running."""
    DISCONNECTED = "disconnected"
    """The last client that waited for it closed the connection."""
    CANCELLED = "cancelled"
    """Its owner cancelled it."""
    SHUT_DOWN = "shut_down"
    """The service ended first; a job that was promised runs again after the restart."""


REASONS: Final = {
    RequestTimedOut: Outcome.TIMED_OUT,
    Disconnected: Outcome.DISCONNECTED,
    Cancelled: Outcome.CANCELLED,
    ShuttingDown: Outcome.SHUT_DOWN,
}


def outcome_of(reason: ServiceError) -> Outcome:
    """Return how a job ends that is stopped for ``reason``."""
    return REASONS.get(type(reason), Outcome.FAILED)


class DeliveryState(StrEnum):
    """Where the webhook of a job is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How far the webhook of a job got."""

    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    status: int | None = None
    """The receiver's last answer; None where there was none."""
    detail: str = ""
    """What was wrong with the last attempt; never a word of the receiver's answer."""


class UploadOutcome(StrEnum):
    """What became of one image that was sent; a large body with images in it counts as one, too."""

    RECEIVED = "received"
    """It arrived whole."""
    KEPT = "kept"
    """A job took it over."""
    BROKEN = "broken"
    """It ended before it was whole."""
    REFUSED = "refused"
    """Too many bytes were on their way in."""
