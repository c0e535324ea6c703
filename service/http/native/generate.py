"""``POST /generate``: from a checked request to the bytes of its answer."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service.core.events import JobFinished
from service.core.limits import RequestLimits
from service.core.spec import TEXTS
from service.core.stage import Stage
from service.errors import (
    AdapterUnsuitable,
    Cancelled,
    EngineCrashed,
    GenerationFailed,
    IdempotencyConflict,
    JobExpired,
    ModelNotFound,
    NotAcceptable,
    Overloaded,
    ResultDamaged,
    SamplerUnsuitable,
    ServiceError,
    ValidationFailed,
)
from service.http.accept import answered_at_once, preferred
from service.http.native.jobs import REFUSALS, accepted
from service.http.native.submission import JOB_ID, PARAMETER, REPLAYED, key_of, submit
from service.http.schema.answers import Generated
from service.http.schema.decorators import docs, request_schema, response_schema
from service.http.schema.orders import MODELS, generate_schema
from service.http.state import DEADLINE, JOBS, METRICS, ORDER, SPANS
from service.images.encode import MEDIA_TYPES, converted, file_answer, json_answer, json_body
from service.jobs.durable.live_job import Durability
from service.jobs.job import Job
from service.jobs.service import JobHandle
from service.system.executors import CONVERSIONS, IMAGES
from service.telemetry.exemplars import exemplar

JSON: Final = "application/json"
OFFERED: Final = (JSON, *MEDIA_TYPES.values())


@lru_cache(maxsize=MODELS)
def generate_handler(limits: RequestLimits, longest: float) -> Handler:
    """Build the handler; a request may take ``longest`` seconds at most."""

    @docs(
        summary="Make images from a prompt.",
        description=(
            "The answer comes when the image is finished. With `Accept: image/png`, "
            "`image/webp` or `image/jpeg` it is the file itself, with the metadata in the header "
            "`X-Metadata`, and in the text chunks of a PNG; several images come as JSON, if "
            "`Accept` allows it. "
            "A client that closes the connection frees the GPU within one denoising step. "
            "With an `Idempotency-Key` the same request sent again joins the first one or gets "
            "its answer; if the first one ended without images, it runs again. "
            "With `Prefer: respond-async` it works like `POST /jobs` and accepts the same fields."
        ),
        produces=list(OFFERED),
        parameters=[PARAMETER],
        errors=(
            *(ValidationFailed, SamplerUnsuitable, AdapterUnsuitable, ModelNotFound),
            *(NotAcceptable, IdempotencyConflict, Cancelled),
            *(*REFUSALS, EngineCrashed, GenerationFailed, ResultDamaged, Overloaded, ServiceError),
        ),
    )
    @request_schema(
        generate_schema(limits, longest),
        put_into=ORDER,
        required=True,
        example={"prompt": "a lighthouse at dusk", "seed": 42},
    )
    @response_schema(Generated(), 200, description="The finished images.")
    async def generate(request: web.Request) -> web.Response:
        media_type = preferred(request, OFFERED)
        generation = request[ORDER].generation
        if answered_at_once(request):
            answer = await accepted(request, request[ORDER])
            answer.headers["Preference-Applied"] = "respond-async"
            return answer
        if generation.num_images > 1:
            media_type = _of_several(request, media_type)
        return await _answer(request, media_type)

    return generate


def _of_several(request: web.Request, media_type: str) -> str:
    """Return JSON, if the client takes it: a file holds one image."""
    try:
        return preferred(request, (JSON,))
    except NotAcceptable:
        raise ValidationFailed(
            {"num_images": [f"must be 1 for {media_type}; accept {JSON} to get more"]}
        ) from None


@contextmanager
def answering(request: web.Request) -> Iterator[None]:
    """Count an answer that fails after its job had succeeded."""
    try:
        yield
    except BaseException as error:
        # A client that is gone by now had its image made; anything else is our doing.
        if not isinstance(error, asyncio.CancelledError) or request[DEADLINE].expired():
            request.app[METRICS].answers_failed.inc()
        raise


async def _answer(request: web.Request, media_type: str) -> web.Response:
    durability = Durability.NONE if key_of(request) is None else Durability.KEYED
    while True:
        with await submit(request, durability) as handle:
            done = await handle.wait()
        with answering(request):
            try:
                if fresh := handle.finished:
                    body, details = await _encoded(request, *fresh, media_type)
                else:
                    body, details = await _read(request, handle, media_type)
                break
            except (JobExpired, ResultDamaged):
                if not handle.replayed:
                    raise
        await request.app[JOBS].forget_key(done)  # There is nothing left to repeat.
    answer = web.Response(body=body, content_type=media_type)
    answer.headers["Vary"] = "Accept"
    answer.headers[JOB_ID] = done.id
    if handle.replayed:
        answer.headers[REPLAYED] = "true"
    if media_type != JSON:
        # Two prompts may take 12 kB as header; proxies and clients end at 8.
        short = {k: v for k, v in details.items() if k not in TEXTS}
        answer.headers["X-Metadata"] = json.dumps(short)
    return answer


async def _encoded(
    request: web.Request, job: Job, result: JobFinished, media_type: str
) -> tuple[bytes, dict[str, Any]]:
    """Return the body with images from memory, and their metadata."""
    details = metadata(job, result)
    spans = request.app.get(SPANS)
    started = time.monotonic()
    with spans.stage(Stage.IMAGE_ENCODE) if spans else nullcontext():
        if media_type == JSON:
            encode = partial(json_answer, result.images, job.request, details)
        else:
            encode = partial(file_answer, result.images, job.request, details, media_type)
        body = await IMAGES.run_for(job.owner, encode)
    request.app[METRICS].engine(job.engine).stage_duration(Stage.IMAGE_ENCODE).observe(
        time.monotonic() - started, exemplar(job.request_id, job.trace_id)
    )
    return body, details


async def _read(
    request: web.Request, handle: JobHandle, media_type: str
) -> tuple[bytes, dict[str, Any]]:
    """Return the body with images from the disk, and their metadata."""
    done, image = handle.stored, request.app[JOBS].image
    details = dict(done.metadata or {})
    files = [(await image(done, index)).data for index in range(done.request.num_images)]
    if media_type == JSON:
        encode = partial(json_body, files, details)
    else:
        encode = partial(converted, files[0], media_type)
    executor = CONVERSIONS if handle.replayed else IMAGES
    return await executor.run_for(done.owner, encode), details


def metadata(job: Job, result: JobFinished) -> dict[str, Any]:
    """Say how the images were made and how long each part took, in seconds."""
    generation = job.request
    started = job.started or job.created
    return {
        **asdict(generation),
        "seeds": list(generation.seeds),
        "model_version": job.model_version,
        **job.model_facts,
        "generation_time_seconds": round((job.drawn or started) - started, 4),
        "queue_seconds": round(started - job.created, 4),
        "attempts": job.attempts,
        "prompt_truncated": result.prompt_tokens_cut > 0,
        "prompt_tokens_cut": result.prompt_tokens_cut,
        "adapter_hashes": dict(result.adapter_hashes),
        "embeddings": dict(result.embeddings),
        "unsafe": [image.unsafe for image in result.images],
        "request_id": job.request_id,
    }
