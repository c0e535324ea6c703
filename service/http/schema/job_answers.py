"""What answers about jobs look like, for the API description."""

from functools import partial

from marshmallow import Schema, fields

from service.http.schema.answers import described
from service.http.schema.generated import Metadata
from service.jobs.job import JobState


class JobError(Schema):
    """Why a job has no images."""

    code = described(fields.String, "Stable name of the error; decide by this.", "timeout")
    detail = described(fields.String, "What went wrong, and how to fix it.")


class JobWebhook(Schema):
    """Delivery of the webhook of a job."""

    state = described(
        fields.String, "State of the delivery.", enum=["pending", "delivered", "failed"]
    )
    attempts = described(fields.Integer, "Attempts so far.", 1)
    status = described(
        fields.Integer, "HTTP status of the receiver's last answer.", 200, allow_none=True
    )
    detail = described(fields.String, "Why the last attempt failed; empty if it did not.")


class JobLinks(Schema):
    """Paths of the job."""

    self = described(fields.String, "Path of the job.", "/jobs/3f2a…")
    image = described(fields.String, "Path of its first image.", "/jobs/3f2a…/image")
    events = described(fields.String, "Path of its events.", "/jobs/3f2a…/events")


class JobAnswer(Schema):
    """A job of the caller."""

    id = described(fields.String, "Id of the job: 32 hexadecimal digits.", "3f2a" * 8)
    state = described(fields.String, "State of the job.", enum=[state.value for state in JobState])
    created_at = described(fields.Float, "When the job was accepted, in seconds since 1970.", 1.8e9)
    started_at = described(fields.Float, "When the job last started; null before.", allow_none=True)
    finished_at = described(fields.Float, "When the job ended; null before.", allow_none=True)
    deadline_at = described(
        fields.Float,
        "When the job fails if it has not ended; null without a deadline.",
        allow_none=True,
    )
    attempts = described(fields.Integer, "Number of starts so far.", 1)
    steps = described(fields.Integer, "Requested denoising steps.", 20)
    steps_done = described(fields.Integer, "Denoising steps done.", 7)
    progress = described(
        fields.Dict,
        "Position and seconds to the start of a waiting job; step and seconds left of a "
        "running one.",
        allow_none=True,
    )
    error = described(
        partial(fields.Nested, JobError),
        "Why the job ended without images; null otherwise.",
        allow_none=True,
    )
    metadata = described(
        partial(fields.Nested, Metadata),
        "How the images were made; null until they are finished.",
        allow_none=True,
    )
    webhook = described(
        partial(fields.Nested, JobWebhook),
        "Delivery of the webhook; null without one.",
        allow_none=True,
    )
    links = described(partial(fields.Nested, JobLinks), "Paths of the job.")


class JobsRemoved(Schema):
    """What was removed."""

    removed = described(fields.Integer, "Jobs that were removed.", 12)


class JobPage(Schema):
    """A page of the caller's jobs, newest first."""

    jobs = described(partial(fields.List, fields.Nested(JobAnswer)), "Jobs, newest first.")
    cursor = described(
        fields.String, "Cursor of the next page; null on the last page.", allow_none=True
    )
