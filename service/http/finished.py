"""Images of finished jobs as files, for the answers of every API."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

from aiohttp import web

from service.core.events import JobFinished
from service.core.stage import Stage
from service.errors import JobExpired, ResultDamaged
from service.http.state import CONFIG, DEADLINE, JOBS, METRICS, SPANS
from service.http.submission import submit
from service.images.encode import converted, file
from service.jobs.durable.live_job import Durability
from service.jobs.job import Job
from service.jobs.service import JobHandle
from service.system.executors import CONVERSIONS, IMAGES
from service.telemetry.exemplars import exemplar

T = TypeVar("T")
Metadata = dict[str, Any]
Build = Callable[[list[bytes], Metadata], T]
"""Makes an answer from files and metadata, in a thread: JSON with images takes a while."""

GONE = (JobExpired, ResultDamaged)
"""Images that were kept and are no more."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What image files are wanted."""

    media_type: str = "image/png"
    whole: bool = False
    """Whether a PNG also carries the metadata as JSON; files that are kept always do."""

    quality: int | None = None
    """From 1 to 100, for WebP and JPEG; None: lossless WebP, JPEG of the usual quality."""

    bare: bool = False
    """Whether they hold nothing but pixels; IMAGE_METADATA decides."""


@dataclass(frozen=True, kw_only=True)
class Made(Generic[T]):
    """An answer, and the job that made its images."""

    handle: JobHandle
    built: T
    metadata: Metadata


async def generated(
    request: web.Request, durability: Durability, form: Form, build: Build[T]
) -> Made[T]:
    """Submit the job of a request, wait for it, and build the answer.

    Where an idempotency key stands for images that are gone, they are made again.

    Raises:
        ServiceError: as ``submit`` and ``JobHandle.wait`` say.

    """
    while True:
        with await submit(request, durability) as handle:
            done = await handle.wait()
        try:
            return await images(request, handle, form, build)
        except GONE:
            if not handle.replayed:
                raise
        await request.app[JOBS].forget_key(done)  # There is nothing left to repeat.


async def images(request: web.Request, handle: JobHandle, form: Form, build: Build[T]) -> Made[T]:
    """Build the answer with the images of a job that has succeeded.

    Raises:
        JobExpired, ResultDamaged, StorageUnavailable: they were kept, and cannot be read.

    """
    form = replace(form, bare=request.app[CONFIG].bare_images)
    with _answering(request, handle):
        if fresh := handle.finished:
            built, details = await _from_memory(request, *fresh, form, build)
        else:
            built, details = await _from_disk(request, handle, form, build)
    return Made(handle=handle, built=built, metadata=details)


@contextmanager
def _answering(request: web.Request, handle: JobHandle) -> Iterator[None]:
    """Count an answer that fails after its job had succeeded."""
    try:
        yield
    except BaseException as error:
        if handle.replayed and isinstance(error, GONE):
            raise  # They are made again.
        # A client that is gone by now had its image made; anything else is our doing.
        if not isinstance(error, asyncio.CancelledError) or request[DEADLINE].expired():
            request.app[METRICS].answers_failed.inc()
        raise


async def _from_memory(
    request: web.Request, job: Job, result: JobFinished, form: Form, build: Build[T]
) -> tuple[T, Metadata]:
    details = metadata(job, result)
    spans = request.app.get(SPANS)
    started = time.monotonic()
    with spans.stage(Stage.IMAGE_ENCODE) if spans else nullcontext():
        built = await IMAGES.run_for(
            job.owner, partial(_encoded, job, result, details, form, build)
        )
    request.app[METRICS].engine(job.engine).stage_duration(Stage.IMAGE_ENCODE).observe(
        time.monotonic() - started, exemplar(job.request_id, job.trace_id)
    )
    return built, details


def _encoded(job: Job, result: JobFinished, details: Metadata, form: Form, build: Build[T]) -> T:
    encode = partial(
        file,
        request=job.request,
        metadata=details,
        media_type=form.media_type,
        whole=form.whole,
        quality=form.quality,
        bare=form.bare,
    )
    return build([encode(each, index=i) for i, each in enumerate(result.images)], details)


async def _from_disk(
    request: web.Request, handle: JobHandle, form: Form, build: Build[T]
) -> tuple[T, Metadata]:
    done, image = handle.stored, request.app[JOBS].image
    details = dict(done.metadata or {})
    files = [(await image(done, index)).data for index in range(done.request.num_images)]

    convert = partial(converted, media_type=form.media_type, quality=form.quality, bare=form.bare)

    def from_files() -> T:
        return build([convert(each) for each in files], details)

    executor = CONVERSIONS if handle.replayed else IMAGES
    return await executor.run_for(done.owner, from_files), details


def metadata(job: Job, result: JobFinished) -> Metadata:
    """Say how the images were made and how long each part took, in seconds."""
    generation = job.request
    started = job.started or job.created
    early = result.interrupted_after is not None
    return {
        **generation.used,
        "seeds": list(generation.seeds),
        **({"subseeds": list(generation.subseeds)} if generation.subseed_strength else {}),
        "image_width": result.images[0].width,
        "image_height": result.images[0].height,
        "model_version": job.model_version,
        **job.model_facts,
        "warnings": [*job.model_facts.get("warnings", ()), *generation.doubts],
        "generation_time_seconds": round((job.drawn or started) - started, 4),
        "queue_seconds": round(started - job.created, 4),
        "attempts": job.attempts,
        "prompt_tokens": result.prompt_tokens,
        "prompt_truncated": result.prompt_tokens_cut > 0,
        "prompt_tokens_cut": result.prompt_tokens_cut,
        "adapter_hashes": dict(result.adapter_hashes),
        "embeddings": dict(result.embeddings),
        "interrupted": job.interrupted,
        "steps_done": job.steps_done if early else generation.total_steps,
        "unsafe": [image.unsafe for image in result.images],
        "request_id": job.request_id,
    }
