"""A job as it is kept on the disk: plain values that outlive the process."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from service.core.fields import RequestField
from service.core.outcome import Delivery, DeliveryState
from service.core.spec import FIELDS, GenerationSpec
from service.jobs.job import FINAL, JobState
from service.jobs.store import reading
from service.jobs.store.reading import DamagedRow
from service.telemetry.labels import NATIVE

DIGESTS: Final = "+"
"""Stands between two digests of one request."""


@dataclass(frozen=True, kw_only=True)
class StoredJob:
    """One accepted job; times are seconds since 1970."""

    id: str
    owner: str
    """Name of the API key that it belongs to; the column is ``key``. No other key sees it."""
    request: GenerationSpec = field(repr=False)
    state: JobState = JobState.QUEUED
    api: str = NATIVE
    """The API that it came through."""
    request_id: str = ""
    trace_id: str = ""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float | None = None
    attempts: int = 0
    epoch: int = 0
    """Number of the latest attempt."""
    steps_done: int = 0
    error_code: str = ""
    error_detail: str = ""
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    """What the answer says next to the images."""
    model_version: str = ""
    idempotency_key: str | None = None
    idempotency_digest: str = ""
    """Of the body as it was sent, and of the request that it means; the first only in rows of
    earlier versions. The seed that a request without one gets counts in neither."""
    webhook: str | None = field(default=None, repr=False)
    """The address that is told of the end; it may hold a token of its owner."""
    delivery: Delivery | None = None
    """Set where there is a webhook."""
    complete: bool = True
    """False where another version of the service stored a request that this one cannot read."""

    def repeats(self, earlier: "StoredJob") -> bool:
        """Return whether this asks for what ``earlier`` asked for: in its words, or in others."""
        digests = self.idempotency_digest.split(DIGESTS)
        return not {*digests}.isdisjoint(earlier.idempotency_digest.split(DIGESTS))

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


def request_to_json(request: GenerationSpec) -> str:
    """Return the request as JSON."""
    return json.dumps(request.used)


def request_from_json(text: str) -> tuple[GenerationSpec, bool]:
    """Return the request, and whether that is all of what was written.

    A newer version may have fields or samplers that this one does not know. Such a job can be
    shown, but running it would make another image than the one that was asked for.

    Raises:
        DamagedRow: it is no request.

    """
    values = reading.mapping(text, "request")
    known = {each.name: values[each.name] for each in FIELDS if each.name in values}
    if "prompt" not in known:
        raise DamagedRow("request has no prompt")
    request = GenerationSpec(**known)
    reading.demand(asdict(request), reading.REQUEST, "request")
    made = {each.name: _made(each, known[each.name]) for each in FIELDS if each.name in known}
    request = GenerationSpec(**made)
    chosen = all(getattr(request, each.name) in each.choices for each in FIELDS if each.choices)
    return request, len(known) == len(values) and chosen


def _made(asked: RequestField, value: Any) -> Any:
    """Return the value of a field from its JSON."""
    if asked.entries is not None:
        return tuple(asked.entries(**each) for each in value)
    return asked.kind(**value) if asked.is_object and value is not None else value


CHECKS: Final[Mapping[str, reading.Check]] = {
    "id": lambda value: isinstance(value, str) and bool(reading.ID.fullmatch(value)),
    "key": reading.name,
    "state": reading.one_of(JobState),
    "request": reading.text,
    "request_id": reading.text,
    "trace_id": lambda value: value == "" or (reading.text(value) and _is_trace(value)),
    "created_at": reading.moment,
    "started_at": reading.maybe(reading.moment),
    "finished_at": reading.maybe(reading.moment),
    "deadline_at": reading.maybe(reading.moment),
    "api": reading.name,
    "attempts": reading.whole,
    "epoch": reading.whole,
    "steps_done": reading.whole,
    "error_code": reading.text,
    "error_detail": reading.text,
    "metadata": reading.maybe(reading.text),
    "model_version": reading.text,
    "idempotency_key": reading.maybe(reading.text),
    "idempotency_digest": reading.text,
    "webhook": reading.maybe(reading.address),
    "webhook_state": reading.maybe(reading.one_of(DeliveryState)),
    "webhook_attempts": reading.maybe(reading.whole),
    "webhook_status": reading.maybe(reading.whole),
    "webhook_detail": reading.maybe(reading.text),
}
"""What each column of the table ``jobs`` must hold."""

COLUMNS: Final = tuple(CHECKS)
DELIVERY: Final = ("state", "attempts", "status", "detail")
"""Fields of a delivery, in columns that begin with ``webhook_``."""


def _is_trace(value: str) -> bool:
    # The whole of zeros is no trace (W3C Trace Context).
    return bool(reading.ID.fullmatch(value)) and value.strip("0") != ""


def to_row(job: StoredJob) -> tuple[object, ...]:
    """Return the values of COLUMNS."""
    delivery = job.delivery or (Delivery() if job.webhook else None)
    row: dict[str, object] = {
        **{name: getattr(job, name, None) for name in COLUMNS},
        **{f"webhook_{name}": getattr(delivery, name, None) for name in DELIVERY},
        "key": job.owner,
        "state": job.state.value,
        "request": request_to_json(job.request),
        "metadata": None if job.metadata is None else json.dumps(job.metadata),
    }
    return tuple(row[name] for name in COLUMNS)


def from_row(row: tuple[Any, ...]) -> StoredJob:
    """Return the job that a row of COLUMNS holds.

    Raises:
        DamagedRow: no service wrote it.

    """
    values = dict(zip(COLUMNS, row, strict=True))
    reading.demand(values, CHECKS)
    if (JobState(values["state"]) in FINAL) is (values["finished_at"] is None):
        raise DamagedRow("state and finished_at do not fit")
    state, attempts, status, detail = (values.pop(f"webhook_{name}") for name in DELIVERY)
    values["state"] = JobState(values["state"])
    values["request"], complete = request_from_json(values["request"])
    if values["metadata"] is not None:
        values["metadata"] = reading.mapping(values["metadata"], "metadata")
    values["delivery"] = state and Delivery(
        state=DeliveryState(state), attempts=attempts or 0, status=status, detail=detail or ""
    )
    return StoredJob(owner=values.pop("key"), complete=complete, **values)
