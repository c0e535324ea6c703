"""``/jobs``: pictures for clients that do not wait for them."""

import asyncio
import re
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service.config import Config
from service.diffusion.generation import GenerationRequest
from service.errors import (
    EngineUnavailable,
    IdempotencyConflict,
    JobExpired,
    JobsOff,
    ModelUnavailable,
    NotAcceptable,
    NotFound,
    NotReady,
    OutOfMemory,
    QueueFull,
    ResultDamaged,
    ServiceError,
    ShuttingDown,
    StorageUnavailable,
    StoreUnavailable,
    ValidationFailed,
)
from service.http import idempotency, limits
from service.http.accept import preferred
from service.http.decorators import docs, request_schema, response_schema
from service.http.job_answers import JobAnswer, JobPage
from service.http.job_orders import Order, order_schema
from service.http.keys import (
    CALLER,
    CONFIG,
    CONSUMER,
    DURABLE,
    ORDER,
    REQUEST_ID,
    TARGETS,
    TRACE_ID,
)
from service.http.pictures import MEDIA_TYPES, converted
from service.http.sampling import demand_sampler
from service.http.streams import event_stream
from service.http.timeouts import timeout_seconds
from service.jobs.book import Book
from service.jobs.entry import Entry
from service.jobs.job import Job, JobState
from service.jobs.stored import StoredJob

MOST_PER_PAGE: Final = 100
ID: Final = {"in": "path", "name": "id", "required": True, "schema": {"type": "string"}}
WHOLE: Final = re.compile(r"[0-9]{1,9}")
"""ASCII digits: ``int`` reads those of every script, and raises at 4,301 of them."""

REFUSALS: Final = (
    *(QueueFull, ShuttingDown, ModelUnavailable, EngineUnavailable, OutOfMemory),
    *(StoreUnavailable, JobsOff),
)


def _query(name: str, **schema: Any) -> dict[str, Any]:
    return {"in": "query", "name": name, "schema": schema}


def accept_handler(config: Config) -> Handler:
    """Build the handler of ``POST /jobs``."""

    @docs(
        operationId="createJob",
        tags=["jobs"],
        summary="Accept a job, to be fetched later.",
        description=(
            "When 202 comes the job is on the disk: it is run whatever ends the service. With "
            "an `Idempotency-Key` the same request sent again gets the same job. It fails when "
            "`timeout_seconds` or `X-Request-Timeout` is over, whichever is less."
        ),
        parameters=[idempotency.PARAMETER],
        errors=(ValidationFailed, IdempotencyConflict, *REFUSALS, ServiceError),
    )
    @request_schema(
        order_schema(config),
        put_into=ORDER,
        required=True,
        example={"prompt": "a lighthouse at dusk", "seed": 42},
    )
    @response_schema(JobAnswer(), 200, description="It was accepted before, and is over.")
    @response_schema(JobAnswer(), 202, description="The job was accepted.")
    async def accept(request: web.Request) -> web.Response:
        return await accepted(request, request[ORDER])

    return accept


async def accepted(request: web.Request, order: Order) -> web.Response:
    """Hand a job in and answer 202, or 200 for one that was handed in before and is over."""
    if order.webhook:
        try:
            request.app[TARGETS].validate_url(order.webhook)
        except ValueError as error:
            raise ValidationFailed({"webhook": [str(error)]}) from error
    job = new_job(request, order.generation)
    seconds = min(order.timeout_seconds, timeout_seconds(request))
    stored = await book_of(request).accept(
        job,
        await idempotency.row(request, job, timeout_seconds=seconds, webhook=order.webhook),
        admit=lambda: limits.charge(request, order.generation),
    )
    found, entry = await book_of(request).get(stored.id, job.key)
    replayed = stored.id != job.id
    status = 200 if replayed and found.final else 202
    headers = {"Location": f"/jobs/{stored.id}"}
    if replayed:
        headers[idempotency.REPLAYED] = "true"
    return web.json_response(answer_of(found, entry), status=status, headers=headers)


@docs(
    operationId="getJob",
    tags=["jobs"],
    summary="Say how a job is.",
    parameters=[ID],
    errors=(NotFound, JobExpired, StoreUnavailable, JobsOff),
)
@response_schema(JobAnswer(), 200, description="The job.")
async def show(request: web.Request) -> web.Response:
    """Answer with one job of the caller."""
    stored, entry = await book_of(request).get(request.match_info["id"], request[CALLER].name)
    return web.json_response(answer_of(stored, entry))


@docs(
    operationId="listJobs",
    tags=["jobs"],
    summary="List the caller's jobs, the newest first.",
    parameters=[
        _query("limit", type="integer", minimum=1, maximum=MOST_PER_PAGE, default=20),
        _query("cursor", type="string"),
        _query("state", type="string", enum=[state.value for state in JobState]),
    ],
    errors=(ValidationFailed, StoreUnavailable),
)
@response_schema(JobPage(), 200, description="Some jobs, and what the next page is asked with.")
async def page(request: web.Request) -> web.Response:
    """Answer with a page of jobs."""
    query, book = request.query, book_of(request)
    limit, state = query.get("limit", "20"), query.get("state")
    if not WHOLE.fullmatch(limit) or not 1 <= int(limit) <= MOST_PER_PAGE:
        raise ValidationFailed({"limit": [f"must be a whole number from 1 to {MOST_PER_PAGE}"]})
    if state is not None and state not in {known.value for known in JobState}:
        names = ", ".join(known.value for known in JobState)
        raise ValidationFailed({"state": [f"must be one of {names}"]})
    found = await book.page(
        request[CALLER].name,
        state=JobState(state) if state else None,
        cursor=query.get("cursor"),
        limit=int(limit),
    )
    jobs = [answer_of(stored, book.entries.get(stored.id)) for stored in found.jobs]
    return web.json_response({"jobs": jobs, "cursor": found.cursor})


@docs(
    operationId="cancelJob",
    tags=["jobs"],
    summary="Cancel a job, waiting or running; one that is over stays as it is.",
    parameters=[ID],
    errors=(NotFound, JobExpired, StoreUnavailable, JobsOff),
)
@response_schema(JobAnswer(), 200, description="The job as it is now.")
async def cancel(request: web.Request) -> web.Response:
    """Cancel that job and no other; the GPU is free of it within one step."""
    stored = await book_of(request).cancel(request.match_info["id"], request[CALLER].name)
    return web.json_response(answer_of(stored, None))


@docs(
    operationId="getJobImage",
    tags=["jobs"],
    summary="Fetch a finished picture.",
    produces=list(MEDIA_TYPES.values()),
    parameters=[
        ID,
        _query("format", type="string", enum=list(MEDIA_TYPES)),
        _query("index", type="integer", minimum=0, default=0),
    ],
    errors=(
        ValidationFailed,
        NotFound,
        JobExpired,
        NotReady,
        NotAcceptable,
        StorageUnavailable,
        ResultDamaged,
    ),
)
async def image(request: web.Request) -> web.Response:
    """Answer with one picture, in the format that ``?format=`` or ``Accept`` asks for."""
    media_type = _media_type(request)
    stored, _ = await book_of(request).get(request.match_info["id"], request[CALLER].name)
    if stored.state is not JobState.SUCCEEDED:
        raise NotReady(f"The job is {stored.state.value}; pictures come with 'succeeded'.")
    index = request.query.get("index", "0")
    if not WHOLE.fullmatch(index) or int(index) >= stored.request.num_images:
        most = stored.request.num_images - 1
        raise ValidationFailed({"index": [f"must be a whole number from 0 to {most}"]})
    picture = await book_of(request).picture(stored, int(index))
    body = await asyncio.to_thread(converted, picture.data, media_type)
    headers = {"Vary": "Accept", "Cache-Control": "private, no-store"}
    return web.Response(body=body, content_type=media_type, headers=headers)


@docs(
    operationId="watchJob",
    tags=["jobs"],
    summary="Watch a job as server-sent events.",
    description=(
        "`queued` with the position, `started`, `step`, then `finished`, `failed` or "
        "`cancelled`, which ends the stream. `Last-Event-ID` goes on where a lost line ended. "
        "With `preview=true` also `preview`, about every half second: the first picture as it is "
        "now, a JPEG with one pixel for every 8 by 8 of the picture (`image_base64`, "
        "`media_type`, `width`, `height`, `step`, `steps`)."
    ),
    produces=["text/event-stream"],
    parameters=[ID, _query("preview", type="string", enum=["true", "false"], default="false")],
    errors=(ValidationFailed, NotFound, JobExpired, StoreUnavailable, JobsOff),
)
async def watch(request: web.Request) -> web.StreamResponse:
    """Stream the events of a job until it is over."""
    previews = _previews(request)
    stored, entry = await book_of(request).get(request.match_info["id"], request[CALLER].name)
    return await event_stream(request, book_of(request), stored, entry, previews=previews)


def new_job(request: web.Request, generation: GenerationRequest) -> Job:
    """Return the job that a request asks for.

    Raises:
        ValidationFailed: the loaded model cannot be drawn with its sampler and steps.

    """
    demand_sampler(generation, request.app[CONSUMER].engine.model)
    return Job(
        request=generation,
        request_id=request[REQUEST_ID],
        trace_id=request[TRACE_ID],
        key=request[CALLER].name,
    )


def book_of(request: web.Request, instead: str = "use POST /generate") -> Book:
    """Return the book of the service's jobs.

    Raises:
        JobsOff: it keeps none; ``instead`` is what can be done without.

    """
    if DURABLE not in request.app:
        raise JobsOff(f"Set DATA_DIR to a folder to keep jobs in; or {instead}.")
    return request.app[DURABLE].book


def answer_of(stored: StoredJob, entry: Entry | None) -> dict[str, Any]:
    """Describe a job: the row, and while it is not over what the entry knows beyond it."""
    job = entry.job if entry is not None else None
    state = stored.state if job is None or job.final else job.state
    newest = entry.events.newest if entry is not None else None
    place = f"/jobs/{stored.id}"
    return {
        "id": stored.id,
        "state": state.value,
        "created_at": stored.created_at,
        "started_at": stored.started_at,
        "finished_at": stored.finished_at,
        "deadline_at": stored.deadline_at,
        "attempts": job.attempts if job is not None else stored.attempts,
        "steps": stored.request.steps,
        "steps_done": job.steps_done if job is not None else stored.steps_done,
        "progress": dict(newest.data) if newest is not None else None,
        "error": {"code": stored.error_code, "detail": stored.error_detail}
        if stored.error_code
        else None,
        "metadata": dict(stored.metadata) if stored.metadata is not None else None,
        "webhook": stored.delivery
        and {
            "state": stored.delivery.state.value,
            "attempts": stored.delivery.attempts,
            "status": stored.delivery.status,
            "detail": stored.delivery.detail,
        },
        "links": {"self": place, "image": f"{place}/image", "events": f"{place}/events"},
    }


def _previews(request: web.Request) -> bool:
    asked = request.query.get("preview", "false")
    if asked not in {"true", "false"}:
        raise ValidationFailed({"preview": ["must be true or false"]})
    if asked == "true" and request.app[CONFIG].safety_checker:
        # Small as it is, it would show what the checker is there to hide.
        raise ValidationFailed({"preview": ["must be false where SAFETY_CHECKER is on"]})
    return asked == "true"


def _media_type(request: web.Request) -> str:
    asked = request.query.get("format")
    if asked is None:
        return preferred(request, tuple(MEDIA_TYPES.values()))
    if asked not in MEDIA_TYPES:
        raise ValidationFailed({"format": [f"must be one of {', '.join(MEDIA_TYPES)}"]})
    return MEDIA_TYPES[asked]
