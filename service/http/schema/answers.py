"""What answers look like, for the API description; a test holds real answers against it."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from marshmallow import Schema, fields

F = TypeVar("F", bound=fields.Field[Any])


def say(description: str, example: Any = None, **more: Any) -> dict[str, Any]:
    """Return what the API description says of a field."""
    shown = {} if example is None else {"examples": [example]}
    return {"description": description, **shown, **more}


def described(
    kind: Callable[..., F],
    description: str,
    example: Any = None,
    *,
    attribute: str | None = None,
    allow_none: bool = False,
    **more: Any,
) -> F:
    """Return a field that every answer of its kind has, null only where ``allow_none``."""
    about = say(description, example, **more)
    return kind(required=True, attribute=attribute, allow_none=allow_none, metadata=about)


class Model(Schema):
    """The model in use."""

    id = described(fields.String, "The value of MODEL_ID.", "demo", attribute="model_id")
    version = described(fields.String, "Version of the weights.", "demo-1.0")
    demo = described(fields.Boolean, "Whether this is the bundled demo model.", True)
    device = described(fields.String, "`cpu` or the name of the GPU.", "cpu")
    dtype = described(fields.String, "Number format of the weights.", "float32")
    family = described(
        fields.String, "`sd` is Stable Diffusion 1.x and 2.x.", "sd", enum=["sd", "sdxl"]
    )
    prediction_type = described(
        fields.String,
        "What the UNet predicts.",
        "epsilon",
        enum=["epsilon", "v_prediction", "sample"],
    )
    prediction_type_from = described(
        fields.String,
        "File, marker or setting it was read from.",
        "scheduler_config.json",
        attribute="prediction_from",
    )
    configuration = described(
        fields.String, "Source of the configuration and the tokenizer.", "models/my-model"
    )
    ignored_tensors = described(
        partial(fields.List, fields.String()),
        "Groups of tensors in a single file that the service does not use.",
        [],
        attribute="ignored",
    )


class FieldLimits(Schema):
    """Limits of one field."""

    minimum = described(fields.Float, "Least value.", 256)
    maximum = described(fields.Float, "Greatest value.", 768)
    multiple_of = fields.Integer(metadata=say("What it must be a multiple of.", 64))


ASKED: Final = {
    "limits": partial(
        described,
        partial(fields.Dict, keys=fields.String(), values=fields.Nested(FieldLimits)),
        "Limits of the numbers in a request to this model, by field.",
        {"width": {"minimum": 256, "maximum": 768, "multiple_of": 64}},
    ),
    "defaults": partial(
        described,
        partial(fields.Dict, keys=fields.String()),
        "Values of fields that a request leaves out.",
        {"width": 512, "height": 512},
    ),
}
"""What a request may say; with the settings and the model that hold now."""


class RecipeAnswer(Schema):
    """What a model wants where a request says nothing."""

    name = described(fields.String, "Its name, also in the metadata of images.", "lightning")
    source = described(fields.String, "Where it comes from.", "name")
    guessed = described(fields.Boolean, "Whether nothing but a name told.", True)
    values = described(
        partial(fields.Dict, keys=fields.String()),
        "What it asks for, by field; `size` is width and height.",
        {"steps": 4, "guidance_scale": 0.0, "sampler": "euler"},
    )


class ListedSampler(Schema):
    """A sampler that a model can be drawn with."""

    name = described(fields.String, "Name to use in `sampler`.", "dpmpp_2m")
    label = described(fields.String, "AUTOMATIC1111's name for it.", "DPM++ 2M")
    schedules = described(
        partial(fields.List, fields.String()),
        "Noise schedules that it can follow, for `schedule`.",
        ["automatic", "karras"],
    )


class ListedModel(Schema):
    """A model, and what requests to it may say."""

    id = described(
        fields.String, "Its name: the value of MODEL_ID, or the name on the hub.", "demo"
    )
    default = described(fields.Boolean, "Whether it draws the requests that name no model.", True)
    state = described(
        fields.String,
        "`loaded`: requests start at once · `parked`: in host memory, next to a GPU · `loading` · "
        "`on_disk` · `on_hub`: it is downloaded first · `failed`: it cannot be used.",
        "loaded",
        enum=["loaded", "parked", "loading", "on_disk", "on_hub", "failed"],
    )
    engines = described(
        partial(fields.List, fields.String()),
        "Names of the engines that have it in memory; see `engines` of `GET /health`.",
        ["0"],
    )
    problem = described(
        fields.String, "Why it cannot be used; null if it can.", None, allow_none=True
    )
    licence = described(
        fields.String,
        "Licence as its README, LICENSE file or weights name it; null where they do not.",
        "openrail++",
        allow_none=True,
    )
    size_bytes = described(
        fields.Integer,
        "Size of its weights; null where they are not here.",
        6938078334,
        allow_none=True,
    )
    family = described(
        fields.String,
        "`sd` is Stable Diffusion 1.x and 2.x; null for a model whose files cannot be read.",
        "sd",
        enum=["sd", "sdxl", None],
        allow_none=True,
    )
    inpainting = described(
        fields.Boolean,
        "Whether it was made for inpainting: its UNet takes a mask and a masked image, too.",
        False,
    )
    recipe = described(
        partial(fields.Nested, RecipeAnswer), "null where it has none.", allow_none=True
    )
    warnings = described(
        partial(fields.List, fields.String()),
        "What users of the model have to know: a recipe that was guessed from a name, or asks for "
        "more than the limits allow.",
        [],
    )
    vae = described(
        fields.String,
        "Name of the VAE that decodes; empty for the model's own.",
        "sdxl-vae-fp16-fix",
    )
    version = described(
        fields.String,
        "Version of the weights; null until they are loaded.",
        "demo-1.0",
        allow_none=True,
    )
    limits, defaults = ASKED["limits"](), ASKED["defaults"]()
    samplers = described(
        partial(fields.List, fields.Nested(ListedSampler)), "Samplers that can draw with it."
    )


class ModelList(Schema):
    """The models."""

    models = described(
        partial(fields.List, fields.Nested(ListedModel)), "The models, the default one first."
    )


class EngineStatus(Schema):
    """The process that runs the model."""

    state = described(
        fields.String,
        "State of the engine process.",
        "ready",
        enum=["stopped", "loading", "ready", "restarting", "failed"],
    )
    restarts = described(fields.Integer, "Times the engine ended by itself.", 0)
    circuit = described(
        fields.String,
        "`open`: the engine crashed repeatedly and new work is refused · `half_open`: the "
        "engine is back and runs one job at a time as a test.",
        "closed",
        enum=["closed", "open", "half_open"],
    )
    silent_seconds = described(
        fields.Float, "Seconds without a message while it loads or has work; else 0.", 0.0
    )
    failure = fields.String(
        metadata=say("Why the model cannot be loaded.", "The folder has no UNet.")
    )


class SlotStatus(EngineStatus):
    """One of the engines: a process with a GPU of its own, or with a share of the CPU."""

    name = described(fields.String, "Its name, the label `engine` of the metrics.", "0")
    leaving = described(
        fields.Boolean, "Whether it ends its jobs, takes no new ones, and is gone then.", False
    )
    running = described(fields.Integer, "Requests in work there.", 3)
    node = described(fields.String, "With `ENGINE=ray` the address of its machine, else empty.", "")
    device = described(
        fields.String, "Name of its device; empty before it has loaded a model.", "NVIDIA A100"
    )
    gpu = described(fields.String, "UUID of its GPU; empty on a CPU.", "")
    models = described(
        partial(fields.List, fields.String()), "Models that it has in memory.", ["demo"]
    )


class QueueStatus(Schema):
    """The queue of waiting requests."""

    depth = described(fields.Integer, "Waiting requests.", 2)
    limit = described(fields.Integer, "Most requests that may wait.", 64)


class Health(Schema):
    """Status of the service."""

    status = described(
        fields.String,
        "`healthy`: images can be made · `loading`: the model is being loaded · "
        "`restarting`: the engine ended and is being restarted · `degraded`: the model "
        "cannot be loaded, or the engine keeps crashing · `shutting_down`: accepted requests are "
        "finished, new ones are refused.",
        "healthy",
        enum=["healthy", "loading", "restarting", "degraded", "shutting_down"],
    )
    gpu_available = described(fields.Boolean, "Whether a GPU is available.", True)
    gpu_memory_used = described(
        fields.String,
        "Memory in use by all programs, of all GPUs together; 1 GB is 2**30 bytes.",
        "2.1 GB",
    )
    gpu_memory_total = described(
        fields.String, "Memory of all GPUs together; 0.0 GB without one.", "6.0 GB"
    )
    model_loaded = described(fields.Boolean, "Whether images can be made now.", True)
    uptime_seconds = described(fields.Float, "Seconds since the start.", 3600.5)
    model = described(
        partial(fields.Nested, Model), "null until a model has been loaded.", allow_none=True
    )
    engine = described(
        partial(fields.Nested, EngineStatus),
        "The process that runs the model. Of several it is one that works, or is nearest to it, "
        "with the restarts of all of them.",
    )
    engines = described(
        partial(fields.List, fields.Nested(SlotStatus)),
        "All engines. Callers without a key see neither models, devices nor failures.",
    )
    queue = described(partial(fields.Nested, QueueStatus), "The queue of waiting requests.")
    running = described(fields.Integer, "Requests in work.", 3)
    limits, defaults = ASKED["limits"](), ASKED["defaults"]()
    version = described(fields.String, "Version of the service.", "0.1.0")


class Status(Schema):
    """Status as one word."""

    status = described(fields.String, "`alive` or `ready`.", "ready")


class Problem(Schema):
    """An error, as RFC 9457 describes it."""

    type = described(fields.String, "URL of the documentation of this error.")
    title = described(fields.String, "Kind of error.")
    status = described(fields.Integer, "HTTP status code.", 400)
    detail = described(fields.String, "What went wrong this time, and how to fix it.")
    instance = described(fields.String, "Path of the request.")
    code = described(fields.String, "Stable name of the error; decide by this.")
    request_id = described(fields.String, "Id of the request, also in the log.")
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata=say("Each wrong field with what it must be; only with status 400."),
    )
