"""How far the webhook of a job got."""

from dataclasses import dataclass
from enum import StrEnum


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
