"""``/progress``, ``/interrupt`` and ``/skip``: the caller's job, and nobody else's."""

import time
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from marshmallow import Schema, fields

from service.errors import Overloaded, ValidationFailed
from service.http.schema.answers import described
from service.http.schema.decorators import docs, response_schema
from service.http.sdapi.tasks import TASKS, caller_of, interrupt
from service.http.state import CONFIG, JOBS
from service.http.values import only
from service.jobs.durable.live_job import LiveJob

FLOOR: Final = 0.01
"""Least progress of a job that is not over; clients take 0 for none."""
FLAGS: Final = {"": False, "true": True, "1": True, "false": False, "0": False}

IDLE: Final[dict[str, Any]] = {
    "progress": 0.0,
    "eta_relative": 0.0,
    "state": {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": "",
        "job_count": 0,
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    },
    "current_image": None,
    "textinfo": None,
}
"""Answer for a caller without a job."""

TASK: Final = {
    "in": "query",
    "name": "force_task_id",
    "schema": {"type": "string"},
    "description": "Job with this `force_task_id`; without it the caller's oldest one.",
}
NO_IMAGE: Final = {
    "in": "query",
    "name": "skip_current_image",
    "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
    "description": "Leave `current_image` out.",
}


class Progress(Schema):
    """How far the caller's job is."""

    progress = described(fields.Float, "From 0 to 1; 0 without a job.", 0.35)
    eta_relative = described(fields.Float, "Seconds that it still takes.", 1.2)
    state = described(fields.Dict, "`job_count`, `sampling_step` and so on.", {"job_count": 1})
    current_image = described(
        fields.String,
        "The unfinished image as base64, once there is one; null where SAFETY_CHECKER is on.",
        None,
        allow_none=True,
    )
    textinfo = described(fields.String, "Its place in the queue.", None, allow_none=True)


@docs(
    summary="Return how far the caller's job is, with a preview.",
    parameters=[NO_IMAGE, TASK],
    errors=(ValidationFailed, Overloaded),
)
@response_schema(Progress(), 200, description="How far it is.")
async def progress(request: web.Request) -> web.Response:
    """Answer for the job that the caller means; the engine makes previews from then on."""
    skip = FLAGS.get(only(request.query, "skip_current_image", "").lower())
    if skip is None:
        raise ValidationFailed({"skip_current_image": ["must be true or false"]})
    tasks, caller = request.app[TASKS], caller_of(request)
    task = tasks.current(caller, _name(request))
    if task is None or task.live is None:
        return web.json_response(IDLE)
    image = None
    if not skip and not request.app[CONFIG].safety_checker:
        task.watch(request.app[JOBS])
        image = await task.image()
    newest = request.app[JOBS].show(task.live)
    told = dict(newest.data) if newest is not None else {}
    return web.json_response(_said(task.name, task.live, len(tasks.of(caller)), told, image))


@docs(
    summary="End the caller's job early, with its unfinished images.",
    parameters=[TASK],
    errors=(ValidationFailed,),
)
async def end(request: web.Request) -> web.Response:
    """Interrupt the job that the caller means; without one nothing happens."""
    interrupt(request, _name(request))
    return web.json_response({})


@docs(
    summary="End the caller's job early: the images of a job are drawn together.",
    parameters=[TASK],
    errors=(ValidationFailed,),
)
async def skip(request: web.Request) -> web.Response:
    """Do as ``interrupt`` does."""
    interrupt(request, _name(request))
    return web.json_response(None)


def _name(request: web.Request) -> str:
    return only(request.query, "force_task_id", "")


def _said(
    name: str, live: LiveJob, count: int, told: Mapping[str, Any], image: str | None
) -> dict[str, Any]:
    job, place = live.job, told.get("position")
    started = time.localtime(live.stored.created_at)
    return {
        "progress": max(FLOOR, job.steps_done / job.request.total_steps),
        "eta_relative": float(told.get("eta_seconds", told.get("start_seconds", 0.0))),
        "state": {
            **IDLE["state"],
            "interrupted": job.interrupted,
            "job": name or "txt2img",
            "job_count": count,
            "job_timestamp": time.strftime("%Y%m%d%H%M%S", started),
            "sampling_step": job.steps_done,
            "sampling_steps": job.request.total_steps,
        },
        "current_image": image,
        "textinfo": f"Place {place} in the queue" if place else None,
    }
