"""``POST /generate``: from a checked request to the bytes of its answer."""

import asyncio
import json
import time
from contextlib import nullcontext
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service.config import Config
from service.diffusion.generation import JobFinished
from service.errors import (
    BodyTooLarge,
    Cancelled,
    EngineCrashed,
    GenerationFailed,
    ModelUnavailable,
    NotAcceptable,
    OutOfMemory,
    QueueFull,
    RequestTimedOut,
    ServiceError,
    ShuttingDown,
    UnsupportedEncoding,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.http.accept import preferred
from service.http.answers import Generated
from service.http.decorators import docs, request_schema, response_schema
from service.http.job_orders import Order
from service.http.jobs import accepted
from service.http.keys import (
    CALLER,
    CHARGE,
    CONSUMER,
    DEADLINE,
    GENERATION,
    METRICS,
    REQUEST_ID,
    SPANS,
    TRACE_ID,
)
from service.http.middlewares import timed_out
from service.http.pictures import json_answer, png_answer
from service.http.schemas import generation_schema
from service.http.timeouts import timeout_seconds
from service.jobs.job import Job
from service.telemetry.exemplars import exemplar

JSON: Final = "application/json"
PNG: Final = "image/png"


def generate_handler(config: Config) -> Handler:
    """Build the handler: its decorators carry the limits in the settings."""

    @docs(
        operationId="generate",
        tags=["pictures"],
        summary="Make pictures from a prompt.",
        description=(
            "The answer comes when the picture is finished. With `Accept: image/png` it is the "
            "file itself, with the metadata in its text chunks and in the header `X-Metadata`. "
            "A client that closes the connection frees the GPU within one denoising step. "
            "With `Prefer: respond-async` it is the same as `POST /jobs`."
        ),
        produces=[JSON, PNG],
        errors=(
            ValidationFailed,
            NotAcceptable,
            RequestTimedOut,
            BodyTooLarge,
            UnsupportedMediaType,
            UnsupportedEncoding,
            QueueFull,
            ShuttingDown,
            ModelUnavailable,
            OutOfMemory,
            EngineCrashed,
            GenerationFailed,
            ServiceError,
        ),
    )
    @request_schema(
        generation_schema(config),
        put_into=GENERATION,
        required=True,
        example={"prompt": "a lighthouse at dusk", "seed": 42},
    )
    @response_schema(Generated(), 200, description="The finished pictures.")
    async def generate(request: web.Request) -> web.Response:
        media_type = preferred(request, (JSON, PNG))
        generation = request[GENERATION]
        if "respond-async" in _preferences(request):
            order = Order(generation=generation, timeout_seconds=timeout_seconds(request))
            answer = await accepted(request, order)
            answer.headers["Preference-Applied"] = "respond-async"
            return answer
        if media_type == PNG and generation.num_images > 1:
            raise ValidationFailed(
                {"num_images": ["must be 1 for image/png; ask for application/json to get more"]}
            )
        job = Job(
            request=generation,
            request_id=request[REQUEST_ID],
            trace_id=request[TRACE_ID],
            key=request[CALLER].name,
            charge=request[CHARGE],
        )
        result = await _finish(request, job)
        try:
            return await _answer(request, job, result, media_type)
        except BaseException as error:
            # A client that is gone by now had its picture made; anything else is our doing.
            if not isinstance(error, asyncio.CancelledError) or request[DEADLINE].expired():
                request.app[METRICS].answers_failed.inc()
            raise

    return generate


def _preferences(request: web.Request) -> set[str]:
    """Return what the client would like, if it is all the same to us (RFC 7240)."""
    given = ",".join(request.headers.getall("Prefer", []))
    return {part.split(";")[0].strip().lower() for part in given.split(",")}


async def _finish(request: web.Request, job: Job) -> JobFinished:
    """Hand the job in and wait; a request that ends early takes its job with it."""
    consumer = request.app[CONSUMER]
    consumer.submit(job)
    try:
        return await job.wait()
    except asyncio.CancelledError:
        late = request[DEADLINE].expired()
        consumer.cancel(
            job, timed_out(request) if late else Cancelled("The client closed the connection.")
        )
        raise
    finally:
        if spans := request.app.get(SPANS):
            spans.job(job)


async def _answer(
    request: web.Request, job: Job, result: JobFinished, media_type: str
) -> web.Response:
    details = metadata(job, result)
    encode = png_answer if media_type == PNG else json_answer
    spans = request.app.get(SPANS)
    started = time.monotonic()
    with spans.stage("image_encode") if spans else nullcontext():
        body = await asyncio.to_thread(encode, result.pictures, job.request, details)
    request.app[METRICS].stage_duration.labels("image_encode").observe(
        time.monotonic() - started, exemplar(job.request_id, job.trace_id)
    )
    answer = web.Response(body=body, content_type=media_type)
    answer.headers["Vary"] = "Accept"
    if media_type == PNG:
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
