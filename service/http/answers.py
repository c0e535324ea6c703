"""What answers look like, for the API description; a test holds real answers against it."""

from typing import Any

from marshmallow import Schema, fields


def _say(description: str, **more: Any) -> dict[str, Any]:
    return {"description": description, **more}


class Metadata(Schema):
    """How the pictures were made."""

    prompt = fields.String(required=True)
    negative_prompt = fields.String(required=True)
    steps = fields.Integer(required=True)
    width = fields.Integer(required=True, metadata=_say("Pixels."))
    height = fields.Integer(required=True, metadata=_say("Pixels."))
    seed = fields.Integer(required=True, metadata=_say("Seed of the first picture."))
    seeds = fields.List(
        fields.Integer(), required=True, metadata=_say("Seed of each picture, in order.")
    )
    guidance_scale = fields.Float(required=True)
    sampler = fields.String(required=True)
    num_images = fields.Integer(required=True)
    model_version = fields.String(required=True)
    generation_time_seconds = fields.Float(
        required=True, metadata=_say("From joining a batch to finished pixels.")
    )
    queue_seconds = fields.Float(required=True, metadata=_say("From acceptance to the batch."))
    attempts = fields.Integer(
        required=True, metadata=_say("More than 1 when the engine was restarted meanwhile.")
    )
    prompt_truncated = fields.Boolean(
        required=True, metadata=_say("Whether the model could not read the whole prompt.")
    )
    prompt_tokens_cut = fields.Integer(
        required=True, metadata=_say("Tokens of the prompt that the model did not read.")
    )
    unsafe = fields.List(
        fields.Boolean(),
        required=True,
        metadata=_say("Whether the safety checker blacked out each picture."),
    )
    request_id = fields.String(required=True)


class Generated(Schema):
    """Finished pictures."""

    image_base64 = fields.String(
        required=True, metadata=_say("The first picture as PNG.", contentEncoding="base64")
    )
    images_base64 = fields.List(
        fields.String(), metadata=_say("All pictures in order, when more than one was asked for.")
    )
    metadata = fields.Nested(Metadata, required=True)


class Model(Schema):
    """The model in use."""

    id = fields.String(required=True)
    version = fields.String(required=True)
    demo = fields.Boolean(required=True, metadata=_say("Whether it is the small bundled model."))
    device = fields.String(required=True, metadata=_say("`cpu` or the name of the GPU."))
    dtype = fields.String(required=True)


class EngineStatus(Schema):
    """The process that runs the model."""

    state = fields.String(
        required=True,
        metadata=_say("Where it is in its life.", examples=["ready"]),
    )
    restarts = fields.Integer(required=True, metadata=_say("Times it ended by itself."))
    failure = fields.String(metadata=_say("Why the model cannot be loaded."))


class QueueStatus(Schema):
    """The queue in front of the engine."""

    depth = fields.Integer(required=True, metadata=_say("Requests waiting."))
    limit = fields.Integer(required=True, metadata=_say("Requests that may wait."))


class Health(Schema):
    """How the service is."""

    status = fields.String(
        required=True,
        metadata=_say(
            "`healthy`: pictures can be made · `loading`: the model is being loaded · "
            "`restarting`: the engine ended and comes back · `degraded`: the model cannot be "
            "loaded · `shutting_down`: accepted requests are finished, new ones are refused.",
            enum=["healthy", "loading", "restarting", "degraded", "shutting_down"],
        ),
    )
    gpu_available = fields.Boolean(required=True)
    gpu_memory_used = fields.String(
        required=True, metadata=_say("By everything on the GPU; 1 GB is 2**30 bytes.")
    )
    gpu_memory_total = fields.String(required=True)
    model_loaded = fields.Boolean(required=True)
    uptime_seconds = fields.Float(required=True)
    model = fields.Nested(Model, required=True, allow_none=True)
    engine = fields.Nested(EngineStatus, required=True)
    queue = fields.Nested(QueueStatus, required=True)
    running = fields.Integer(required=True, metadata=_say("Requests in the running batch."))
    version = fields.String(required=True, metadata=_say("Of this service."))


class Status(Schema):
    """One word."""

    status = fields.String(required=True)


class Problem(Schema):
    """An error, as RFC 9457 describes it."""

    type = fields.String(required=True, metadata=_say("Address of this error's documentation."))
    title = fields.String(required=True, metadata=_say("What went wrong, in general."))
    status = fields.Integer(required=True)
    detail = fields.String(required=True, metadata=_say("What went wrong this time, and the cure."))
    instance = fields.String(required=True, metadata=_say("Path of the request."))
    code = fields.String(required=True, metadata=_say("Stable name of the error, for programs."))
    request_id = fields.String(required=True, metadata=_say("Finds the request in the log."))
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata=_say("Every wrong field and what it must be; only with status 400."),
    )
