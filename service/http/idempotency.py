"""``Idempotency-Key``: a request that is sent again gets the answer of the first one.

The draft of the IETF (draft-ietf-httpapi-idempotency-key-header) as far as it goes; it leaves
open what becomes of a request that failed. ``POST /jobs`` shows the failed job to whom it gave
the id; ``POST /generate`` tries again, and what ended without pictures there, by an error or
because its client hung up, is no answer to ``POST /jobs`` either: nobody was given anything.
"""

import hashlib
import json
import re
import time
from typing import Any, Final

from aiohttp import web

from service.errors import ValidationFailed
from service.http.keys import CALLER, REQUEST_ID, TRACE_ID
from service.jobs.job import Job
from service.jobs.stored import StoredJob

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
"""Says ``true`` on an answer to a request that was sent before."""

LONGEST: Final = 255
SANE: Final = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")

PARAMETER: Final[dict[str, Any]] = {
    "in": "header",
    "name": HEADER,
    "schema": {"type": "string", "pattern": f"^{SANE.pattern}$"},
    "example": "9c1f2c3e",
    "description": "Names this request: sent again with the same body, it is not done twice.",
}


def key_of(request: web.Request) -> str | None:
    """Return the idempotency key of a request, None where it has none.

    Raises:
        ValidationFailed: it cannot be one.

    """
    given = request.headers.get(HEADER)
    if given is None:
        return None
    if not SANE.fullmatch(given):
        limit = f"must have 1 to {LONGEST} printable ASCII characters"
        raise ValidationFailed({HEADER: [limit]})
    return given


async def row(
    request: web.Request, job: Job, *, timeout_seconds: float, webhook: str = ""
) -> StoredJob:
    """Return the row of a job that a request asks for."""
    now = time.time()
    return StoredJob(
        id=job.id,
        key=request[CALLER].name,
        request=job.request,
        request_id=request[REQUEST_ID],
        trace_id=request[TRACE_ID],
        created_at=now,
        deadline_at=now + timeout_seconds,
        idempotency_key=key_of(request),
        idempotency_digest=_digest(await request.read()),
        webhook=webhook or None,
    )


def _digest(body: bytes) -> str:
    """Return what tells one body from another; the order of its fields does not matter."""
    text = json.dumps(json.loads(body), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
