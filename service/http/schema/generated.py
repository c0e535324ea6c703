"""What answers with images say of them, for the API description."""

from functools import partial
from typing import Any, Final

from marshmallow import Schema, fields

from service.config.limits import limits_of
from service.config.table import Config
from service.core.fields import RequestField
from service.core.inputs import InputImage
from service.core.spec import FIELDS, declared
from service.http.schema.answers import described, say

KINDS: Final = {
    str: fields.String,
    int: fields.Integer,
    float: fields.Float,
    bool: fields.Boolean,
}

Weighted: Final = Schema.from_dict(
    {
        "name": described(fields.String, "Name of the adapter.", "ink"),
        "weight": described(fields.Float, "Strength of its changes to the denoiser.", 0.8),
        "text_weight": described(
            fields.Float, "Strength of its changes to the text encoders.", 0.8
        ),
    },
    name="Adapter",
)
"""An adapter that images were made with."""


def _declared(asked: RequestField) -> fields.Field[Any]:
    about: dict[str, Any] = {
        "required": not asked.needs,
        "metadata": say(asked.meaning, asked.example),
    }
    if asked.entries is not None:
        return fields.List(fields.Nested(Weighted), **about)
    if asked.is_object:
        return fields.Nested(_object(asked.kind), **about)
    found: fields.Field[Any] = KINDS[asked.kind](**about)
    return found


def _object(kind: type) -> type[Schema]:
    """Return the schema of a dataclass that a request has as an object."""
    if kind is InputImage:
        return Reference
    built = {each.name: _declared(each.within(limits_of(Config()))) for each in declared(kind)}
    return Schema.from_dict(dict(built), name=kind.__name__)


Reference: Final = Schema.from_dict(
    {
        "digest": described(
            fields.String, "SHA-256 of its bytes as they were sent, in hexadecimal.", "9f86d081…"
        ),
        "width": described(fields.Integer, "Its width in pixels.", 512),
        "height": described(fields.Integer, "Its height in pixels.", 512),
    },
    name="InputImage",
)
"""An image that a request came with; the image itself is in no answer."""

Metadata: Final = Schema.from_dict(
    {
        **{
            each.name: _declared(each)
            for each in (one.within(limits_of(Config())) for one in FIELDS)
        },
        "seeds": described(
            partial(fields.List, fields.Integer()), "Seed of each image, in order.", [42]
        ),
        "subseeds": fields.List(
            fields.Integer,
            metadata=say("Seed of each image's variation, with `subseed_strength`.", [7]),
        ),
        "image_width": described(
            fields.Integer,
            "Width of the images in pixels; of those of the first pass if it was interrupted.",
            512,
        ),
        "image_height": described(fields.Integer, "Their height in pixels.", 512),
        "model_version": described(fields.String, "Version of the weights.", "demo-1.0"),
        "model_hash": described(
            fields.String,
            "Hash of the model's weights, as AUTOMATIC1111 writes it. Empty until it is known.",
            "2fa7c1dbee",
        ),
        "recipe": described(
            fields.String,
            "Recipe of the model: where the defaults of steps, guidance, sampler and size come "
            "from. Empty for none.",
            "lightning",
        ),
        "vae": described(
            fields.String,
            "Name of the VAE that decoded the images; empty for the model's own.",
            "sdxl-vae-fp16-fix",
        ),
        "warnings": described(
            partial(fields.List, fields.String()),
            "What may be wrong with the images, for example a recipe that was guessed from a name.",
            [],
        ),
        "generation_time_seconds": described(
            fields.Float, "Seconds from joining a batch to the finished pixels.", 1.84
        ),
        "queue_seconds": described(
            fields.Float, "Seconds from acceptance to joining a batch.", 0.012
        ),
        "attempts": described(
            fields.Integer, "Number of starts; above 1 if the engine crashed.", 1
        ),
        "prompt_truncated": described(
            fields.Boolean, "Whether the model could not read the whole prompt.", False
        ),
        "prompt_tokens": described(
            fields.Integer, "Tokens of the prompt, for the text encoder.", 7
        ),
        "prompt_tokens_cut": described(
            fields.Integer, "Tokens of the prompt that the model did not read.", 0
        ),
        "adapter_hashes": described(
            fields.Dict,
            "Hash of each adapter's file by name, as AUTOMATIC1111 writes it.",
            {"ink": "0cf9180a764a"},
        ),
        "embeddings": described(
            fields.Dict,
            "Hash of the file of each embedding that the prompts name, by name.",
            {"easynegative": "c74b4e810b03"},
        ),
        "interrupted": described(
            fields.Boolean, "Whether an interrupt ended the job before its last step.", False
        ),
        "steps_done": described(
            fields.Integer, "Denoising steps done: fewer than asked for after an interrupt.", 20
        ),
        "unsafe": described(
            partial(fields.List, fields.Boolean()),
            "Whether the safety checker blacked out each image.",
            [False],
        ),
        "request_id": described(fields.String, "Id of the request, also in the log.", "7f1c9a52"),
    },
    name="Metadata",
)
"""How the images were made."""


class Generated(Schema):
    """Finished images."""

    image_base64 = described(
        fields.String, "The first image as PNG.", "iVBORw0KGgo…", contentEncoding="base64"
    )
    images_base64 = fields.List(
        fields.String(), metadata=say("All images in order, when more than one was asked for.")
    )
    metadata = described(partial(fields.Nested, Metadata), "How the images were made.")
