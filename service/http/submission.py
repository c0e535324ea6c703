"""A request for images as a job, and ``Idempotency-Key``: sent again it is not done twice.

The draft of the IETF (draft-ietf-httpapi-idempotency-key-header) as far as it goes; it leaves
open what becomes of a request that failed. ``POST /jobs`` shows the failed job to whom it gave
the id; ``POST /generate`` tries again, and what ended without images there, by an error or
because its client hung up, is no answer to ``POST /jobs`` either: nobody was given anything.
"""

import hashlib
import json
import re
from dataclasses import asdict, fields
from typing import Any, Final

from aiohttp import web

from service.errors import Disconnected, ValidationFailed
from service.http import state
from service.http.middleware import limits
from service.http.middleware.deadline import timed_out, timeout_seconds
from service.http.schema.adapters import demand_adapters, may_need_files
from service.http.schema.orders import Order
from service.http.schema.sampling import demand_sampler
from service.http.uploads.receiving import SENT
from service.http.uploads.sent import HELD
from service.http.uploads.taking import TAKEN
from service.http.values import only
from service.jobs.durable.live_job import Durability, Terms
from service.jobs.service import JobHandle
from service.jobs.store.stored import DIGESTS
from service.system.executors import FILES

JOB_ID: Final = "X-Job-Id"
"""Header of an answer with images: the job that made them."""

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
    "description": "Names this request: sent again with the same fields, it is not done twice.",
}


def key_of(request: web.Request) -> str | None:
    """Return the idempotency key of a request, None where it has none.

    Raises:
        ValidationFailed: it cannot be one, or there are two.

    """
    given = only(request.headers, HEADER, None)
    if given is not None and not SANE.fullmatch(given):
        limit = f"must have 1 to {LONGEST} printable ASCII characters"
        raise ValidationFailed({HEADER: [limit]})
    return given


async def submit(request: web.Request, durability: Durability) -> JobHandle:
    """Submit the job that a request asks for.

    Raises:
        ValidationFailed: the model does not work with its sampler and steps, or there
            is no such adapter.
        ServiceError: as ``JobService.submit`` says.

    """
    order, key = request[state.ORDER], key_of(request)
    models = request.app[state.MODELS]
    model = models.key(order.generation.model)
    loaded = request.app[state.DISPATCHER].slot_of(model).info(model)
    demand_sampler(order.generation, loaded or models[model].known)
    if may_need_files(order.generation):
        family = (loaded.adapters or loaded.family) if loaded else models[model].family
        await FILES.run(demand_adapters, order.generation, request.app[state.ADAPTERS], family)
    terms = Terms(
        charge=lambda: limits.charge(request, order.generation),
        gone=lambda: timed_out(request) if request[state.DEADLINE].expired() else Disconnected(),
        api=request[state.ROUTE].api.label(request.headers),
        request_id=request[state.REQUEST_ID],
        trace_id=request[state.TRACE_ID],
        timeout_seconds=min(order.timeout_seconds, timeout_seconds(request)),
        idempotency_key=key,
        idempotency_digest=await _digests(request) if key is not None else "",
        webhook=order.webhook or None,
        uploads={name: each.upload for name, each in request.get(TAKEN, {}).items()},
    )
    owner = request[state.CALLER].name
    request[HELD].keep_only(terms.uploads.values())
    return await request.app[state.JOBS].submit(order.generation, owner, durability, terms)


async def _digests(request: web.Request) -> str:
    longest = request.app[state.CONFIG].request_timeout_seconds
    sent = request[SENT] if SENT in request else await request.read()
    return DIGESTS.join((_sent(sent), _meant(request[state.ORDER], longest)))


def _sent(body: bytes) -> str:
    """Return what tells one body from another; the order of its fields does not matter.

    It is all that rows of earlier versions have, and stays the same when defaults are changed.
    """
    return _digest(json.loads(body))


def _meant(order: Order, longest: float) -> str:
    """Return what tells one checked request from another, however it was spelled."""
    generation = order.generation
    # A field that a later version adds does not change the digests of requests without it.
    plain = asdict(generation)
    meant = {
        field.name: plain[field.name]
        for field in fields(generation)
        if getattr(generation, field.name) != field.default
    }
    meant |= dict.fromkeys(order.random)
    if order.webhook:
        meant["webhook"] = order.webhook
    if order.timeout_seconds < longest:
        meant["timeout_seconds"] = order.timeout_seconds
    return _digest(meant)


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
