"""``/jobs``: images for clients that do not wait for them."""

import re
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service.core.limits import RequestLimits
from service.errors import (
    ClusterUnreachable,
    EngineUnavailable,
    IdempotencyConflict,
    JobExpired,
    JobsOff,
    ModelNotFound,
    ModelUnavailable,
    NotAcceptable,
    NotFound,
    NotReady,
    OutOfMemory,
    Overloaded,
    QueueFull,
    ResultDamaged,
    ServiceError,
    ShuttingDown,
    StorageFull,
    StorageUnavailable,
    StoreUnavailable,
    TooManyStreams,
    ValidationFailed,
)
from service.http.accept import image_format, preferred
from service.http.middleware import auth
from service.http.native.events import event_stream
from service.http.prefix import prefixed
from service.http.schema.decorators import docs, request_schema, response_schema
from service.http.schema.job_answers import JobAnswer, JobPage, JobsRemoved
from service.http.schema.orders import MODELS, Order, order_schema
from service.http.server.writing import BODY
from service.http.state import (
    CALLER,
    CONFIG,
    JOBS,
    KEYRING,
    METRICS,
    ORDER,
    SENDING,
    STREAMS,
    TARGETS,
)
from service.http.submission import PARAMETER, REPLAYED, submit
from service.http.uploads import taking
from service.http.values import only
from service.images.encode import MEDIA_TYPES, converted
from service.jobs.durable.live_job import Durability, LiveJob
from service.jobs.job import JobState
from service.jobs.store.stored import StoredJob
from service.system.executors import CONVERSIONS

MOST_PER_PAGE: Final = 100
STREAM_SECONDS: Final = 5.0
"""When one more event stream may be tried: about as long as a job takes."""

ID: Final = {"in": "path", "name": "id", "required": True, "schema": {"type": "string"}}
WHOLE: Final = re.compile(r"[0-9]{1,9}")
"""ASCII digits: ``int`` reads those of every script, and raises at 4,301 of them."""

REFUSALS: Final = (
    *(QueueFull, ShuttingDown, ModelUnavailable, EngineUnavailable, OutOfMemory),
    ClusterUnreachable,
    *(StoreUnavailable, StorageFull, StorageUnavailable, JobsOff),
)


def _query(name: str, **schema: Any) -> dict[str, Any]:
    return {"in": "query", "name": name, "schema": schema}


@lru_cache(maxsize=MODELS)
def accept_handler(limits: RequestLimits, longest: float) -> Handler:
    """Build the handler of ``POST /jobs``; a job may take ``longest`` seconds at most."""

    @docs(
        summary="Accept a job and answer at once.",
        description=(
            "With 202 the job is on the disk: it runs even if the service crashes. With "
            "an `Idempotency-Key` the same request sent again gets the same job. The job fails "
            "after `timeout_seconds` or `X-Request-Timeout`, whichever is less."
        ),
        parameters=[PARAMETER],
        errors=(
            *(ValidationFailed, ModelNotFound, IdempotencyConflict),
            *(*taking.REFUSALS, *REFUSALS, Overloaded, ServiceError),
        ),
    )
    @request_schema(
        order_schema(limits, longest),
        put_into=ORDER,
        required=True,
        example={"prompt": "a lighthouse at dusk", "seed": 42},
    )
    @response_schema(JobAnswer(), 200, description="The job was accepted before and has ended.")
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
    handle = await submit(request, Durability.PROMISED)
    found, live = await request.app[JOBS].get(handle.stored.id, request[CALLER].name)
    status = 200 if handle.replayed and found.final else 202
    headers = {"Location": prefixed(request, f"/jobs/{found.id}")}
    if handle.replayed:
        headers[REPLAYED] = "true"
    return web.json_response(answer_of(request, found, live), status=status, headers=headers)


@docs(
    summary="Return a job.",
    parameters=[ID],
    errors=(NotFound, JobExpired, StoreUnavailable, JobsOff),
)
@response_schema(JobAnswer(), 200, description="The job.")
async def get_job(request: web.Request) -> web.Response:
    """Answer with one job of the caller."""
    stored, live = await request.app[JOBS].get(request.match_info["id"], request[CALLER].name)
    return web.json_response(answer_of(request, stored, live))


@docs(
    summary="List the caller's jobs, newest first.",
    parameters=[
        _query("limit", type="integer", minimum=1, maximum=MOST_PER_PAGE, default=20),
        _query("cursor", type="string"),
        _query("state", type="string", enum=[state.value for state in JobState]),
    ],
    errors=(ValidationFailed, StoreUnavailable, JobsOff),
)
@response_schema(JobPage(), 200, description="A page of jobs and the cursor of the next page.")
async def list_jobs(request: web.Request) -> web.Response:
    """Answer with a page of jobs."""
    query, jobs = request.query, request.app[JOBS]
    limit, state = only(query, "limit", "20"), only(query, "state", None)
    cursor = only(query, "cursor", None)
    if not WHOLE.fullmatch(limit) or not 1 <= int(limit) <= MOST_PER_PAGE:
        raise ValidationFailed({"limit": [f"must be a whole number from 1 to {MOST_PER_PAGE}"]})
    if state is not None and state not in {known.value for known in JobState}:
        names = ", ".join(known.value for known in JobState)
        raise ValidationFailed({"state": [f"must be one of {names}"]})
    found = await jobs.page(
        request[CALLER].name,
        state=JobState(state) if state else None,
        cursor=cursor,
        limit=int(limit),
    )
    shown = [answer_of(request, stored, jobs.live.get(stored.id)) for stored in found.jobs]
    return web.json_response({"jobs": shown, "cursor": found.cursor})


@docs(
    summary="Cancel a waiting or running job; a finished job stays as it is.",
    parameters=[ID],
    errors=(NotFound, JobExpired, StoreUnavailable, JobsOff),
)
@response_schema(JobAnswer(), 200, description="The job as it is now.")
async def cancel_job(request: web.Request) -> web.Response:
    """Cancel that job and no other; the GPU is free of it within one step."""
    stored = await request.app[JOBS].cancel(request.match_info["id"], request[CALLER].name)
    return web.json_response(answer_of(request, stored, None))


@docs(
    summary="Remove all jobs of the caller, with everything that is kept of them.",
    description=(
        "Their prompts, input images, images and webhooks are deleted; jobs that are not over are "
        "cancelled first. Asking for one of them is then 404. Jobs that are accepted while it runs "
        "stay. Without API keys these are the jobs of everybody."
    ),
    errors=(ShuttingDown, StoreUnavailable, StorageUnavailable),
)
@response_schema(JobsRemoved(), 200, description="All of them are gone.")
async def remove_jobs(request: web.Request) -> web.Response:
    """Remove the caller's jobs and no others."""
    removed = await request.app[JOBS].remove(request[CALLER].name)
    return web.json_response({"removed": removed})


@docs(
    summary="End a job early, with its unfinished images.",
    description=(
        "Each image is decoded as it is after the step that it is in, and the job succeeds with "
        "`interrupted: true` and `steps_done` in its metadata. An image that has not begun takes "
        "one step. A waiting job is cancelled; a finished job stays as it is. A restart of the "
        "service forgets an interrupt."
    ),
    parameters=[ID],
    errors=(NotFound, JobExpired, StoreUnavailable, JobsOff),
)
@response_schema(JobAnswer(), 200, description="The job as it is now.")
async def interrupt_job(request: web.Request) -> web.Response:
    """Interrupt that job and no other; its images come with its end, a step and a decode later."""
    name, owner = request.match_info["id"], request[CALLER].name
    return web.json_response(answer_of(request, *await request.app[JOBS].interrupt(name, owner)))


@docs(
    summary="Return an image of a finished job.",
    produces=list(MEDIA_TYPES.values()),
    parameters=[
        ID,
        _query("format", type="string", enum=[*MEDIA_TYPES, "jpg"]),
        _query("index", type="integer", minimum=0, default=0),
    ],
    errors=(
        *(ValidationFailed, NotFound, JobExpired, NotReady, NotAcceptable, StorageUnavailable),
        *(ResultDamaged, Overloaded, StoreUnavailable, JobsOff),
    ),
)
async def get_image(request: web.Request) -> web.Response:
    """Answer with one image, in the format that ``?format=`` or ``Accept`` asks for."""
    media_type, index = _media_type(request), only(request.query, "index", "0")
    stored, _ = await request.app[JOBS].get(request.match_info["id"], request[CALLER].name)
    if stored.state is not JobState.SUCCEEDED:
        raise NotReady(f"The job is {stored.state.value}; images come with 'succeeded'.")
    if not WHOLE.fullmatch(index) or int(index) >= stored.request.num_images:
        most = stored.request.num_images - 1
        raise ValidationFailed({"index": [f"must be a whole number from 0 to {most}"]})
    sending, name = request.app[SENDING], (stored.id, int(index), media_type)
    if (body := sending.get(name)) is None:
        image = await request.app[JOBS].image(stored, int(index))
        bare = request.app[CONFIG].bare_images
        convert = partial(converted, image.data, media_type, bare=bare)
        body = sending.keep(name, await CONVERSIONS.run_for(stored.owner, convert))
    headers = {"Vary": "Accept", "Cache-Control": "private, no-store"}
    answer = web.Response(body=body.content, content_type=media_type, headers=headers)
    answer[BODY] = body
    return answer


@docs(
    summary="Stream the events of a job (server-sent events).",
    description=(
        "`queued` with the position, `started`, `step`, then `finished`, `failed` or "
        "`cancelled`, which ends the stream. `Last-Event-ID` resumes a stream that broke. "
        "With `preview=true` also `preview`, about every half second: the first image as it is "
        "now, a JPEG with one pixel for every 8 by 8 of the image (`image_base64`, "
        "`media_type`, `width`, `height`, `step`, `steps`)."
    ),
    produces=["text/event-stream"],
    parameters=[ID, _query("preview", type="string", enum=["true", "false"], default="false")],
    errors=(ValidationFailed, NotFound, JobExpired, TooManyStreams, StoreUnavailable, JobsOff),
)
async def stream_events(request: web.Request) -> web.StreamResponse:
    """Stream the events of a job until it is over."""
    previews = _previews(request)
    stored, live = await request.app[JOBS].get(request.match_info["id"], request[CALLER].name)
    streams, owner = request.app[STREAMS], request[CALLER].name
    if not request.app[KEYRING]:
        owner = auth.client_of(request)
    error = TooManyStreams(
        f"{streams.most} event streams are open (MAX_EVENT_STREAMS_PER_KEY); close one, or ask "
        "GET /jobs/{id}.",
        retry_after=STREAM_SECONDS,
    )
    with streams.one(owner, error), request.app[METRICS].event_streams.track_inprogress():
        return await event_stream(request, live or stored, previews=previews)


def answer_of(request: web.Request, stored: StoredJob, live: LiveJob | None) -> dict[str, Any]:
    """Describe a job: the row, and while it is not over what is known beyond it."""
    job = live.job if live is not None else None
    state = stored.state if job is None or job.final else job.state
    newest = request.app[JOBS].show(live) if live is not None else None
    place = prefixed(request, f"/jobs/{stored.id}")
    return {
        "id": stored.id,
        "state": state.value,
        "created_at": stored.created_at,
        "started_at": stored.started_at,
        "finished_at": stored.finished_at,
        "deadline_at": stored.deadline_at,
        "attempts": job.attempts if job is not None else stored.attempts,
        "steps": stored.request.total_steps,
        "steps_done": job.steps_done if job is not None else stored.steps_done,
        "progress": dict(newest.data) if newest is not None else None,
        "error": {"code": stored.error_code, "detail": stored.error_detail}
        if stored.error_code
        else None,
        "metadata": dict(stored.metadata) if stored.metadata is not None else None,
        "webhook": stored.delivery and asdict(stored.delivery),
        "links": {"self": place, "image": f"{place}/image", "events": f"{place}/events"},
    }


def _previews(request: web.Request) -> bool:
    asked = only(request.query, "preview", "false")
    if asked not in {"true", "false"}:
        raise ValidationFailed({"preview": ["must be true or false"]})
    if asked == "true" and request.app[CONFIG].safety_checker:
        # Small as it is, it would show what the checker is there to hide.
        raise ValidationFailed({"preview": ["must be false where SAFETY_CHECKER is on"]})
    return asked == "true"


def _media_type(request: web.Request) -> str:
    asked = only(request.query, "format", None)
    if asked is None:
        return preferred(request, tuple(MEDIA_TYPES.values()))
    name = image_format(asked)
    if name not in MEDIA_TYPES:
        raise ValidationFailed({"format": [f"must be one of {', '.join(MEDIA_TYPES)}"]})
    return MEDIA_TYPES[name]
