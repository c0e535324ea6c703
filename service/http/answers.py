"""What answers look like, for the API description; a test holds real answers against it."""

from typing import Any

from marshmallow import Schema, fields


def _say(description: str, example: Any = None, **more: Any) -> dict[str, Any]:
    shown = {} if example is None else {"examples": [example]}
    return {"description": description, **shown, **more}


class Metadata(Schema):
    """How the pictures were made."""

    prompt = fields.String(
        required=True, metadata=_say("What was asked for.", "a lighthouse at dusk")
    )
    negative_prompt = fields.String(
        required=True, metadata=_say("What was not to be shown.", "fog")
    )
    steps = fields.Integer(required=True, metadata=_say("Denoising steps.", 20))
    width = fields.Integer(required=True, metadata=_say("Pixels.", 512))
    height = fields.Integer(required=True, metadata=_say("Pixels.", 512))
    seed = fields.Integer(required=True, metadata=_say("Seed of the first picture.", 42))
    seeds = fields.List(
        fields.Integer(), required=True, metadata=_say("Seed of each picture, in order.", [42])
    )
    guidance_scale = fields.Float(
        required=True, metadata=_say("How closely to follow the prompt.", 7.5)
    )
    sampler = fields.String(required=True, metadata=_say("How noise was taken away.", "dpmpp_2m"))
    num_images = fields.Integer(required=True, metadata=_say("Pictures made.", 1))
    model_version = fields.String(
        required=True, metadata=_say("Which weights made them.", "demo-1.0")
    )
    generation_time_seconds = fields.Float(
        required=True, metadata=_say("From joining a batch to finished pixels.", 1.84)
    )
    queue_seconds = fields.Float(
        required=True, metadata=_say("From acceptance to the batch.", 0.012)
    )
    attempts = fields.Integer(
        required=True, metadata=_say("More than 1 when the engine was restarted meanwhile.", 1)
    )
    prompt_truncated = fields.Boolean(
        required=True, metadata=_say("Whether the model could not read the whole prompt.", False)
    )
    prompt_tokens_cut = fields.Integer(
        required=True, metadata=_say("Tokens of the prompt that the model did not read.", 0)
    )
    unsafe = fields.List(
        fields.Boolean(),
        required=True,
        metadata=_say("Whether the safety checker blacked out each picture.", [False]),
    )
    request_id = fields.String(
        required=True, metadata=_say("Finds the request in the log.", "7f1c9a52")
    )


class Generated(Schema):
    """Finished pictures."""

    image_base64 = fields.String(
        required=True,
        metadata=_say("The first picture as PNG.", "iVBORw0KGgo…", contentEncoding="base64"),
    )
    images_base64 = fields.List(
        fields.String(), metadata=_say("All pictures in order, when more than one was asked for.")
    )
    metadata = fields.Nested(Metadata, required=True, metadata=_say("How they were made."))


class Model(Schema):
    """The model in use."""

    id = fields.String(required=True, metadata=_say("What MODEL_ID names.", "demo"))
    version = fields.String(required=True, metadata=_say("Which weights.", "demo-1.0"))
    demo = fields.Boolean(
        required=True, metadata=_say("Whether it is the small bundled model.", True)
    )
    device = fields.String(required=True, metadata=_say("`cpu` or the name of the GPU.", "cpu"))
    dtype = fields.String(required=True, metadata=_say("Number format of the weights.", "float32"))
    family = fields.String(
        required=True,
        metadata=_say("`sd` is Stable Diffusion 1.x and 2.x.", "sd", enum=["sd", "sdxl"]),
    )
    prediction_type = fields.String(
        required=True,
        metadata=_say(
            "What the UNet predicts.", "epsilon", enum=["epsilon", "v_prediction", "sample"]
        ),
    )
    prediction_type_from = fields.String(
        required=True,
        metadata=_say("The file, marker or setting that said so.", "scheduler_config.json"),
    )
    configuration = fields.String(
        required=True,
        metadata=_say(
            "Where the shapes of the parts and the tokenizer come from.", "models/my-model"
        ),
    )
    ignored_tensors = fields.List(
        fields.String(),
        required=True,
        metadata=_say("Groups of tensors in a single file that are no part of the model.", []),
    )


class EngineStatus(Schema):
    """The process that runs the model."""

    state = fields.String(
        required=True,
        metadata=_say(
            "Where it is in its life.",
            "ready",
            enum=["stopped", "loading", "ready", "restarting", "failed"],
        ),
    )
    restarts = fields.Integer(required=True, metadata=_say("Times it ended by itself.", 0))
    circuit = fields.String(
        required=True,
        metadata=_say(
            "`open`: it ended again and again, and new work is refused · `half_open`: it is back, "
            "and one job at a time shows whether it holds.",
            "closed",
            enum=["closed", "open", "half_open"],
        ),
    )
    silent_seconds = fields.Float(
        required=True,
        metadata=_say("How long it has said nothing while it loads or has work; else 0.", 0.0),
    )
    failure = fields.String(
        metadata=_say("Why the model cannot be loaded; only then.", "The folder has no UNet.")
    )


class QueueStatus(Schema):
    """The queue in front of the engine."""

    depth = fields.Integer(required=True, metadata=_say("Requests waiting.", 2))
    limit = fields.Integer(required=True, metadata=_say("Requests that may wait.", 64))


class Health(Schema):
    """How the service is."""

    status = fields.String(
        required=True,
        metadata=_say(
            "`healthy`: pictures can be made · `loading`: the model is being loaded · "
            "`restarting`: the engine ended and comes back · `degraded`: the model cannot be "
            "loaded, or the engine keeps ending · `shutting_down`: accepted requests are "
            "finished, new ones are refused.",
            "healthy",
            enum=["healthy", "loading", "restarting", "degraded", "shutting_down"],
        ),
    )
    gpu_available = fields.Boolean(
        required=True, metadata=_say("Whether there is a GPU to use.", True)
    )
    gpu_memory_used = fields.String(
        required=True, metadata=_say("By everything on the GPU; 1 GB is 2**30 bytes.", "2.1 GB")
    )
    gpu_memory_total = fields.String(
        required=True, metadata=_say("Of the GPU in use; 0.0 GB without one.", "6.0 GB")
    )
    model_loaded = fields.Boolean(
        required=True, metadata=_say("Whether pictures can be made now.", True)
    )
    uptime_seconds = fields.Float(required=True, metadata=_say("Since the start.", 3600.5))
    model = fields.Nested(
        Model, required=True, allow_none=True, metadata=_say("null until it was loaded once.")
    )
    engine = fields.Nested(
        EngineStatus, required=True, metadata=_say("The process that runs the model.")
    )
    queue = fields.Nested(
        QueueStatus, required=True, metadata=_say("The queue in front of the engine.")
    )
    running = fields.Integer(required=True, metadata=_say("Requests in the running batch.", 3))
    version = fields.String(required=True, metadata=_say("Of this service.", "0.1.0"))


class Status(Schema):
    """One word."""

    status = fields.String(required=True, metadata=_say("It is well.", "ready"))


class Problem(Schema):
    """An error, as RFC 9457 describes it."""

    type = fields.String(required=True, metadata=_say("Address of this error's documentation."))
    title = fields.String(required=True, metadata=_say("What went wrong, in general."))
    status = fields.Integer(required=True, metadata=_say("Of the answer.", 400))
    detail = fields.String(required=True, metadata=_say("What went wrong this time, and the cure."))
    instance = fields.String(required=True, metadata=_say("Path of the request."))
    code = fields.String(required=True, metadata=_say("Stable name of the error, for programs."))
    request_id = fields.String(required=True, metadata=_say("Finds the request in the log."))
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata=_say("Every wrong field and what it must be; only with status 400."),
    )
