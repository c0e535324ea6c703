"""Requests of OpenAI's API with ``stream``: partial images, then the finished ones."""

import asyncio
import base64
import json
import time
from dataclasses import replace
from functools import partial
from typing import Any, Final

from aiohttp import web

from service.errors import ServiceError
from service.http.compat.translation import in_words_of
from service.http.event_stream import HEADERS, follow
from service.http.finished import images
from service.http.middleware.deadline import timed_out
from service.http.openai import errors
from service.http.openai.answering import about, as_made, event, usage, warnings
from service.http.openai.asking import Asked
from service.http.state import CALLER, CONFIG, DEADLINE, ERROR_CODE
from service.http.submission import JOB_ID, REPLAYED, key_of, submit
from service.images.encode import enlarged
from service.jobs.durable.event_log import PREVIEW, JobEvent
from service.jobs.durable.live_job import Durability
from service.jobs.service import JobHandle
from service.system.executors import CONVERSIONS

PARTIAL: Final = "partial_image"
COMPLETED: Final = "completed"
CHECKED: Final = "partial_images: none are shown while the safety checker is on (SAFETY_CHECKER)."
LINKED: Final = "response_format: a stream has b64_json only."


async def stream(request: web.Request, asked: Asked) -> web.StreamResponse:
    """Stream a job's images; what fails before the job is accepted is an answer of its own.

    The job ends with its client, and with the deadline of the request.
    """
    checked = request.app[CONFIG].safety_checker
    if asked.url:
        asked = replace(asked, warnings=(*asked.warnings, LINKED))
    if asked.partial_images and checked:
        asked = replace(asked, partial_images=0, warnings=(*asked.warnings, CHECKED))
    durability = Durability.NONE if key_of(request) is None else Durability.KEYED
    with in_words_of(asked.names):
        handle = await submit(request, durability)
    answer = web.StreamResponse(headers={**HEADERS, JOB_ID: handle.stored.id})
    if handle.replayed:
        answer.headers[REPLAYED] = "true"
    try:
        with handle:
            await answer.prepare(request)
            await _Partials(request, answer, asked).follow(handle)
            await handle.wait()
        for each in (
            await images(request, handle, asked.form, partial(_completed, asked=asked))
        ).built:
            await answer.write(each)
    except ServiceError as error:
        await _failed(request, answer, error)
    except asyncio.CancelledError:
        if not request[DEADLINE].expired():
            raise
        await _failed(request, answer, timed_out(request))
    return answer


async def _failed(request: web.Request, answer: web.StreamResponse, error: ServiceError) -> None:
    """Say in a stream what an answer would say; its status was sent long ago."""
    request[ERROR_CODE] = error.code
    await answer.write(f"event: error\ndata: {json.dumps(errors.body(error))}\n\n".encode())


def _completed(files: list[bytes], metadata: dict[str, Any], asked: Asked) -> list[bytes]:
    created, asked = round(time.time()), as_made(asked, metadata)
    return [
        event(
            f"{asked.events}.{COMPLETED}",
            {
                "b64_json": base64.b64encode(file).decode("ascii"),
                "created_at": created,
                **about(asked),
                "usage": usage(metadata, asked, 1),
                "seed": seed,
                "warnings": warnings(metadata, asked),
            },
        )
        for file, seed in zip(files, metadata["seeds"], strict=True)
    ]


class _Partials:
    """The events of a job while it runs: previews, as evenly over its steps as they come."""

    def __init__(self, request: web.Request, answer: web.StreamResponse, asked: Asked) -> None:
        self._request, self._answer, self._asked = request, answer, asked
        self._sent = 0

    async def follow(self, handle: JobHandle) -> None:
        """Write them until the job is over."""
        events = handle.events(previews=self._asked.partial_images > 0)
        await follow(self._request, self._answer, events, self._write)

    async def _write(self, happened: JobEvent) -> None:
        if happened.kind == PREVIEW:
            await self._preview(happened.data)
        elif happened.kind == "queued" and happened.data.get("position"):
            # The packages know no event for it, and would hand a broken one out.
            await self._answer.write(f": queued, position {happened.data['position']}\n\n".encode())

    async def _preview(self, seen: Any) -> None:
        parts = self._asked.partial_images + 1
        if self._sent + 1 == parts or seen["step"] * parts < seen["steps"] * (self._sent + 1):
            return
        owner = self._request[CALLER].name
        await self._answer.write(await CONVERSIONS.run_for(owner, partial(self._event, seen)))
        self._sent += 1

    def _event(self, seen: Any) -> bytes:
        asked = self._asked
        file = enlarged(seen, asked.size, asked.form.media_type)
        data = {
            "b64_json": base64.b64encode(file).decode("ascii"),
            "partial_image_index": self._sent,
            "created_at": round(time.time()),
            **about(asked),
        }
        return event(f"{asked.events}.{PARTIAL}", data)
