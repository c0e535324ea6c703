"""What answers about jobs look like, for the API description."""

from typing import Any

from marshmallow import Schema, fields

from service.http.answers import Metadata
from service.jobs.job import JobState


def _say(description: str, example: Any = None, **more: Any) -> dict[str, Any]:
    shown = {} if example is None else {"examples": [example]}
    return {"description": description, **shown, **more}


class JobError(Schema):
    """Why a job has no pictures."""

    code = fields.String(required=True, metadata=_say("Stable name, for programs.", "timeout"))
    detail = fields.String(required=True, metadata=_say("What went wrong, and the cure."))


class JobWebhook(Schema):
    """How far the webhook of a job got."""

    state = fields.String(
        required=True, metadata=_say("Where it is.", enum=["pending", "delivered", "failed"])
    )
    attempts = fields.Integer(required=True, metadata=_say("Tries so far.", 1))
    status = fields.Integer(
        required=True, allow_none=True, metadata=_say("The receiver's last answer.", 200)
    )
    detail = fields.String(required=True, metadata=_say("What was wrong with the last try."))


class JobLinks(Schema):
    """Where more is."""

    self = fields.String(required=True, metadata=_say("The job.", "/jobs/3f2a…"))
    image = fields.String(required=True, metadata=_say("Its picture.", "/jobs/3f2a…/image"))
    events = fields.String(required=True, metadata=_say("Its events.", "/jobs/3f2a…/events"))


class JobAnswer(Schema):
    """A job of the caller."""

    id = fields.String(required=True, metadata=_say("Of 32 hexadecimal digits.", "3f2a" * 8))
    state = fields.String(
        required=True, metadata=_say("Where it is.", enum=[state.value for state in JobState])
    )
    created_at = fields.Float(required=True, metadata=_say("Seconds since 1970.", 1.8e9))
    started_at = fields.Float(required=True, allow_none=True, metadata=_say("Its last start."))
    finished_at = fields.Float(required=True, allow_none=True, metadata=_say("Its end."))
    deadline_at = fields.Float(
        required=True, allow_none=True, metadata=_say("When it fails if it is not finished.")
    )
    attempts = fields.Integer(required=True, metadata=_say("Starts so far.", 1))
    steps = fields.Integer(required=True, metadata=_say("Steps asked for.", 20))
    steps_done = fields.Integer(required=True, metadata=_say("Steps done.", 7))
    progress = fields.Dict(
        required=True,
        allow_none=True,
        metadata=_say("What the latest event says: position and start, or step and seconds left."),
    )
    error = fields.Nested(
        JobError,
        required=True,
        allow_none=True,
        metadata=_say("Why it has no pictures; null while it is not over, or has some."),
    )
    metadata = fields.Nested(
        Metadata,
        required=True,
        allow_none=True,
        metadata=_say("How its pictures were made; null until they are."),
    )
    webhook = fields.Nested(
        JobWebhook,
        required=True,
        allow_none=True,
        metadata=_say("How far its webhook got; null without one."),
    )
    links = fields.Nested(JobLinks, required=True, metadata=_say("Where more is."))


class JobPage(Schema):
    """Some jobs of the caller, the newest first."""

    jobs = fields.List(fields.Nested(JobAnswer), required=True, metadata=_say("The newest first."))
    cursor = fields.String(
        required=True, allow_none=True, metadata=_say("For the next page; null on the last one.")
    )
