"""``POST /generate``: from a checked request to the bytes of its answer."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service.config import Config
from service.diffusion.generation import JobFinished
from service.errors import (
    BodyTooLarge,
    Cancelled,
    EngineCrashed,
    EngineUnavailable,
    GenerationFailed,
    IdempotencyConflict,
    JobExpired,
    JobsOff,
    ModelUnavailable,
    NotAcceptable,
    OutOfMemory,
    QueueFull,
    RequestTimedOut,
    ResultDamaged,
    SamplerUnsuitable,
    ServiceError,
    ShuttingDown,
    StorageFull,
    StorageUnavailable,
    StoreUnavailable,
    UnsupportedEncoding,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.http import limits
from service.http.accept import answered_at_once, preferred
from service.http.answers import Generated
from service.http.decorators import docs, request_schema, response_schema
from service.http.idempotency import PARAMETER, REPLAYED, key_of, row
from service.http.job_orders import generate_schema
from service.http.jobs import accepted, book_of, new_job
from service.http.keys import CONSUMER, DEADLINE, METRICS, ORDER, SPANS
from service.http.middlewares import timed_out
from service.http.pictures import MEDIA_TYPES, converted, file_answer, json_answer, json_body
from service.http.timeouts import timeout_seconds
from service.jobs.job import Job
from service.telemetry.exemplars import exemplar

JSON: Final = "application/json"
OFFERED: Final = (JSON, *MEDIA_TYPES.values())


def generate_handler(config: Config) -> Handler:
    """Build the handler: its decorators carry the limits in the settings."""

    @docs(
        operationId="generate",
        tags=["pictures"],
        summary="Make pictures from a prompt.",
        description=(
            "The answer comes when the picture is finished. With `Accept: image/png`, "
            "`image/webp` or `image/jpeg` it is the file itself, with the metadata in the header "
            "`X-Metadata`, and in the text chunks of a PNG. "
            "A client that closes the connection frees the GPU within one denoising step. "
            "With an `Idempotency-Key` the same request sent again joins the first one, or gets "
            "its answer; it is tried anew where the first one ended without pictures. "
            "With `Prefer: respond-async` it is the same as `POST /jobs`, and takes all that that "
            "takes."
        ),
        produces=list(OFFERED),
        parameters=[PARAMETER],
        errors=(
            ValidationFailed,
            SamplerUnsuitable,
            NotAcceptable,
            RequestTimedOut,
            BodyTooLarge,
            UnsupportedMediaType,
            UnsupportedEncoding,
            QueueFull,
            ShuttingDown,
            ModelUnavailable,
            EngineUnavailable,
            OutOfMemory,
            EngineCrashed,
            GenerationFailed,
            IdempotencyConflict,
            JobsOff,
            StoreUnavailable,
            StorageFull,
            StorageUnavailable,
            ResultDamaged,
            ServiceError,
        ),
    )
    @request_schema(
        generate_schema(config),
        put_into=ORDER,
        required=True,
        example={"prompt": "a lighthouse at dusk", "seed": 42},
    )
    @response_schema(Generated(), 200, description="The finished pictures.")
    async def generate(request: web.Request) -> web.Response:
        media_type = preferred(request, OFFERED)
        generation = request[ORDER].generation
        if answered_at_once(request):
            answer = await accepted(request, request[ORDER])
            answer.headers["Preference-Applied"] = "respond-async"
            return answer
        if media_type != JSON and generation.num_images > 1:
            raise ValidationFailed(
                {"num_images": [f"must be 1 for {media_type}; ask for {JSON} to get more"]}
            )
        if key_of(request) is not None:
            return await repeatable(request, media_type)
        job = new_job(request, generation)
        result = await _finish(request, job)
        with answering(request):
            return await _answer(request, job, result, media_type)

    return generate


@contextmanager
def answering(request: web.Request) -> Iterator[None]:
    """Count an answer that fails after its job had succeeded."""
    try:
        yield
    except BaseException as error:
        # A client that is gone by now had its picture made; anything else is our doing.
        if not isinstance(error, asyncio.CancelledError) or request[DEADLINE].expired():
            request.app[METRICS].answers_failed.inc()
        raise


async def _finish(request: web.Request, job: Job) -> JobFinished:
    """Hand the job in and wait; a request that ends early takes its job with it."""
    consumer = request.app[CONSUMER]
    job.charge = limits.charge(request, job.request)
    try:
        consumer.submit(job)
    except ServiceError:
        job.charge.give_back()
        raise
    try:
        return await job.wait()
    except asyncio.CancelledError:
        consumer.cancel(job, gone(request))
        raise
    finally:
        if spans := request.app.get(SPANS):
            spans.job(job)


def gone(request: web.Request) -> ServiceError:
    """Return why nobody waits for the job of a request any more."""
    late = request[DEADLINE].expired()
    return timed_out(request) if late else Cancelled("The client closed the connection.")


async def _answer(
    request: web.Request, job: Job, result: JobFinished, media_type: str
) -> web.Response:
    details = metadata(job, result)
    spans = request.app.get(SPANS)
    started = time.monotonic()
    with spans.stage("image_encode") if spans else nullcontext():
        if media_type == JSON:
            body = await asyncio.to_thread(json_answer, result.pictures, job.request, details)
        else:
            body = await asyncio.to_thread(
                file_answer, result.pictures, job.request, details, media_type
            )
    request.app[METRICS].stage_duration.labels("image_encode").observe(
        time.monotonic() - started, exemplar(job.request_id, job.trace_id)
    )
    return answer_with(body, media_type, details)


async def repeatable(request: web.Request, media_type: str) -> web.Response:
    """Answer a request with an idempotency key, from the disk whether it is the first or not.

    Raises:
        JobsOff: nothing is kept, so nothing could be told from its repetition.

    """
    book = book_of(request, "send the request without Idempotency-Key")
    job = new_job(request, request[ORDER].generation)
    stored = await row(request, job, timeout_seconds=timeout_seconds(request))
    while True:
        async with book.joined(
            job, stored, lambda: limits.charge(request, job.request), lambda: gone(request)
        ) as (found, entry):
            done = await book.result(found, entry)
        replayed = done.id != job.id
        try:
            with answering(request):
                files = [
                    (await book.picture(done, index)).data
                    for index in range(done.request.num_images)
                ]
                break
        except (JobExpired, ResultDamaged):
            if not replayed:
                raise
            await book.forget_key(done)  # There is nothing left to repeat.
    details = dict(done.metadata or {})
    with answering(request):
        if media_type == JSON:
            body = await asyncio.to_thread(json_body, files, details)
        else:
            body = await asyncio.to_thread(converted, files[0], media_type)
    answer = answer_with(body, media_type, details)
    if replayed:
        answer.headers[REPLAYED] = "true"
    return answer


def answer_with(body: bytes, media_type: str, details: Mapping[str, Any]) -> web.Response:
    """Return the answer with finished pictures."""
    answer = web.Response(body=body, content_type=media_type)
    answer.headers["Vary"] = "Accept"
    if media_type != JSON:
        # Two prompts may take 12 kB as header; proxies and clients end at 8.
        short = {k: v for k, v in details.items() if k not in ("prompt", "negative_prompt")}
        answer.headers["X-Metadata"] = json.dumps(short)
    return answer


def metadata(job: Job, result: JobFinished) -> dict[str, Any]:
    """Say how the pictures were made and how long each part took, in seconds."""
    generation = job.request
    started = job.started or job.created
    return {
        "prompt": generation.prompt,
        "negative_prompt": generation.negative_prompt,
        "steps": generation.steps,
        "width": generation.width,
        "height": generation.height,
        "seed": generation.seed,
        "seeds": list(generation.seeds),
        "guidance_scale": generation.guidance_scale,
        "sampler": generation.sampler,
        "num_images": generation.num_images,
        "model_version": job.model_version,
        "generation_time_seconds": round((job.ended or started) - started, 4),
        "queue_seconds": round(started - job.created, 4),
        "attempts": job.attempts,
        "prompt_truncated": result.prompt_tokens_cut > 0,
        "prompt_tokens_cut": result.prompt_tokens_cut,
        "unsafe": [picture.unsafe for picture in result.pictures],
        "request_id": job.request_id,
    }
