"""A job as it is kept on the disk: plain values that outlive the process."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

from service.diffusion.generation import GenerationRequest
from service.jobs.job import FINAL, JobState

REQUEST_FIELDS: Final = frozenset(item.name for item in fields(GenerationRequest))


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


@dataclass(frozen=True, kw_only=True)
class StoredJob:
    """One accepted job; times are seconds since 1970."""

    id: str
    key: str
    """The name of the API key that it belongs to; no other key sees it."""
    request: GenerationRequest = field(repr=False)
    state: JobState = JobState.QUEUED
    request_id: str = ""
    trace_id: str = ""
    priority: int = 0
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float | None = None
    attempts: int = 0
    steps_done: int = 0
    error_code: str = ""
    error_detail: str = ""
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    """What the answer says beside the pictures."""
    model_version: str = ""
    idempotency_key: str | None = None
    idempotency_digest: str = ""
    """Of the body as it was sent: the seed that a request without one gets is another each time."""
    webhook: str | None = field(default=None, repr=False)
    """The address that is told of the end; it may hold a token of its owner."""
    delivery: Delivery | None = None
    """Set where there is a webhook."""
    complete: bool = True
    """False where another version of the service stored a request that this one cannot read."""

    @property
    def final(self) -> bool:
        """Whether nothing will change any more, the delivery of the webhook aside."""
        return self.state in FINAL


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some jobs of one key, the newest first."""

    jobs: tuple[StoredJob, ...]
    cursor: str | None
    """What the next page is asked for with; None on the last one."""


def request_to_json(request: GenerationRequest) -> str:
    """Return the request as JSON."""
    return json.dumps(asdict(request))


def request_from_json(text: str) -> tuple[GenerationRequest, bool]:
    """Return the request, and whether that is all of what was written.

    A newer version may have fields that this one does not know. Such a job can be shown,
    but running it would make another picture than the one that was asked for.
    """
    try:
        values = json.loads(text)
        known = {name: value for name, value in values.items() if name in REQUEST_FIELDS}
        return GenerationRequest(**known), len(known) == len(values)
    except (ValueError, TypeError, AttributeError):
        return GenerationRequest(prompt=""), False


COLUMNS: Final = (
    "id",
    "key",
    "state",
    "request",
    "request_id",
    "trace_id",
    "priority",
    "created_at",
    "started_at",
    "finished_at",
    "deadline_at",
    "attempts",
    "steps_done",
    "error_code",
    "error_detail",
    "metadata",
    "model_version",
    "idempotency_key",
    "idempotency_digest",
    "webhook",
    "webhook_state",
    "webhook_attempts",
    "webhook_status",
    "webhook_detail",
)
"""Of the table ``jobs``, in the order of ``to_row``."""


def to_row(job: StoredJob) -> tuple[object, ...]:
    """Return the values of COLUMNS."""
    delivery = job.delivery or (Delivery() if job.webhook else None)
    row: dict[str, object] = {
        **{name: getattr(job, name, None) for name in COLUMNS},
        "state": job.state.value,
        "request": request_to_json(job.request),
        "metadata": None if job.metadata is None else json.dumps(job.metadata),
    }
    if delivery is not None:
        row |= {
            "webhook_state": delivery.state.value,
            "webhook_attempts": delivery.attempts,
            "webhook_status": delivery.status,
            "webhook_detail": delivery.detail,
        }
    return tuple(row[name] for name in COLUMNS)


def from_row(row: tuple[Any, ...]) -> StoredJob:
    """Return the job that a row of COLUMNS holds."""
    values = dict(zip(COLUMNS, row, strict=True))
    delivery = {
        name: values.pop(f"webhook_{name}") for name in ("state", "attempts", "status", "detail")
    }
    request, complete = request_from_json(values.pop("request"))
    metadata = values.pop("metadata")
    return StoredJob(
        **{
            **values,
            "state": JobState(values["state"]),
            "request": request,
            "complete": complete,
            "metadata": None if metadata is None else json.loads(metadata),
            "delivery": None
            if delivery["state"] is None
            else Delivery(
                state=DeliveryState(delivery["state"]),
                attempts=delivery["attempts"],
                status=delivery["status"],
                detail=delivery["detail"] or "",
            ),
        }
    )
