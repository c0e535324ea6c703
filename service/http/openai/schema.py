"""Requests and answers of the OpenAI API, for their readers and for the API description."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from marshmallow import Schema, fields

from service.core.spec import FIELDS, LONGEST_MODEL, MASKED
from service.http.compat.reading import Flag, LooseSchema, Passed
from service.http.schema.answers import described
from service.http.schema.fields import Choice, Once, Text, WholeNumber
from service.http.schema.forms import File

B64: Final = "b64_json"
URL: Final = "url"
MOST_PARTIALS: Final = 3
LONGEST_WORD: Final = 100
"""Characters of a choice that another service would offer, and that is read here all the same."""

OWN: Final = frozenset({"prompt", "num_images", "model", "image", "mask"})
"""Fields of the native API that this one has in a form of its own."""

BY_NAME: Final = {each.name: each for each in FIELDS}
NATIVE: Final = tuple(each.name for each in FIELDS if each.name not in OWN)
"""Fields of the native API that this one takes by the same names."""

MASKING: Final = tuple(each for each in NATIVE if {*MASKED} & {*BY_NAME[each].needs})
"""Those that need a mask, or sides to add."""

REDRAWING: Final = (*MASKING, *(each for each in NATIVE if "image" in BY_NAME[each].needs))
"""Those that need an image as input."""


def _word(description: str, example: str) -> Text:
    return Text(
        high=LONGEST_WORD,
        example=example,
        load_default=None,
        metadata={"description": description},
    )


class Lora(Once):
    """Adapters as other servers take them: names, or objects with a name and a scale."""

    def __init__(self) -> None:
        entry = {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "scale": {"type": "number"}},
        }
        super().__init__(
            load_default=None,
            metadata={
                "description": (
                    "LoRA files: objects with `name` and `scale` (or `weight`), or names, each "
                    "with its weight behind a colon if wanted. One of them needs no list."
                ),
                "type": ["array", "object", "string"],
                "items": entry,
                "examples": [[{"name": "ink", "scale": 0.8}]],
            },
        )


class _Prompt(Passed):
    def __init__(self) -> None:
        super().__init__(BY_NAME["prompt"], required=True)


def _passed(names: Iterable[str]) -> dict[str, Passed]:
    return {each: Passed(BY_NAME[each]) for each in names}


SHARED: Final[Mapping[str, fields.Field[Any]]] = {
    "model": Text(
        high=LONGEST_MODEL,
        example="demo",
        load_default="",
        metadata={
            "description": "Name of a model, as `GET /v1/models` lists them. Names that begin "
            "with `dall-e-`, `gpt-image-` or `chatgpt-image-` mean the default model."
        },
    ),
    "n": Passed(BY_NAME["num_images"]),
    "size": _word(
        "`WIDTHxHEIGHT` in pixels, or `auto` for the size that the model was trained with.",
        "512x512",
    ),
    "response_format": Choice(
        choices=(B64, URL),
        load_default=B64,
        metadata={
            "description": "`url` answers with links that expire (IMAGE_URL_SECONDS); it needs "
            "kept images (DATA_DIR)."
        },
    ),
    "output_format": _word("`png`, `webp` or `jpeg`; anything else gives `png`.", "png"),
    "output_compression": WholeNumber(
        low=0,
        high=100,
        example=90,
        load_default=None,
        metadata={"description": "Quality of WebP and JPEG; 100 is lossless WebP."},
    ),
    "stream": Flag(
        load_default=False,
        metadata={"description": "Answer with server-sent events."},
    ),
    "partial_images": WholeNumber(
        low=0,
        high=MOST_PARTIALS,
        example=2,
        load_default=0,
        metadata={"description": "Most images in the making that a stream shows."},
    ),
    "quality": _word("Read, and changes nothing; steps decide.", "auto"),
    "style": _word("Read, and changes nothing.", "natural"),
    "background": _word("Read; images are opaque.", "auto"),
    "moderation": _word("Read; SAFETY_CHECKER decides.", "auto"),
    "user": Passed(BY_NAME["prompt"], description="Read, and changes nothing."),
    "safety_identifier": Passed(BY_NAME["prompt"], description="Read, and changes nothing."),
    "num_inference_steps": Passed(BY_NAME["steps"], description="The same as `steps`."),
    "lora": Lora(),
}
"""Fields of every request for images."""

ImageRequest: Final = LooseSchema.from_dict(
    {
        "prompt": _Prompt(),
        **SHARED,
        **_passed(each for each in NATIVE if each not in REDRAWING),
    },
    name="OpenAIImageRequest",
)
IMAGE: Final = File(
    "PNG, JPEG, WebP or AVIF: a file of a form, or its base64.", required=True, several=True
)

EditRequest: Final = LooseSchema.from_dict(
    {
        "prompt": _Prompt(),
        "image": IMAGE,
        "mask": File(
            "Image with transparency, which is repainted where it is transparent. Without one "
            "the transparency of `image` counts; an image without any is redrawn as a whole.",
            several=True,
        ),
        "mask_image": File("The same as `mask`."),
        "input_fidelity": _word("Read, and changes nothing; `strength` decides.", "low"),
        **SHARED,
        **_passed(each for each in NATIVE if each not in ("hires", "mask_invert")),
    },
    name="OpenAIEditRequest",
)

VariationRequest: Final = LooseSchema.from_dict(
    {
        "prompt": Passed(
            BY_NAME["prompt"],
            description="What the image shows; without it, the prompt that the file itself names.",
        ),
        "image": IMAGE,
        **SHARED,
        **_passed(each for each in NATIVE if each not in ("hires", *MASKING)),
    },
    name="OpenAIVariationRequest",
)
REQUEST: Final = ImageRequest()
EDIT: Final = EditRequest()
VARIATION: Final = VariationRequest()


class OpenAITokensDetails(Schema):
    """Tokens of the input by kind."""

    text_tokens = described(fields.Integer, "Tokens of the prompt.", 7)
    image_tokens = described(fields.Integer, "0: there are no images as input.", 0)


class OpenAIUsage(Schema):
    """What a request took, in tokens."""

    input_tokens = described(fields.Integer, "Tokens of the prompt, for the text encoder.", 7)
    input_tokens_details = fields.Nested(
        OpenAITokensDetails, required=True, metadata={"description": "Those tokens by kind."}
    )
    output_tokens = described(fields.Integer, "One for each 16 by 16 pixels of the images.", 1024)
    total_tokens = described(fields.Integer, "Their sum.", 1031)


class OpenAIImage(Schema):
    """One image: ``b64_json``, or ``url`` where that was asked for."""

    b64_json = fields.String(metadata={"description": "The file in base64."})
    url = fields.String(metadata={"description": "Link to the file, which expires."})
    seed = described(fields.Integer, "Seed of the image.", 42)


class OpenAIImages(Schema):
    """Finished images."""

    created = described(fields.Integer, "Unix time.", 1796000000)
    data = fields.List(
        fields.Nested(OpenAIImage), required=True, metadata={"description": "The images."}
    )
    background = described(fields.String, "`opaque`.", "opaque")
    output_format = described(fields.String, "Format of the files.", "png")
    quality = described(fields.String, "`auto`.", "auto")
    size = described(fields.String, "Width and height in pixels.", "512x512")
    usage = fields.Nested(OpenAIUsage, required=True, metadata={"description": "What it took."})
    warnings = described(
        partial(fields.List, fields.String()),
        "What was asked for and is not so, one line each.",
        [],
    )


class OpenAIModel(Schema):
    """A model."""

    id = described(fields.String, "Name of the model.", "demo")
    object = described(fields.String, "`model`.", "model")
    created = described(fields.Integer, "Unix time of its weights; 0 if unknown.", 1796000000)
    owned_by = described(fields.String, "Organisation on the hub, else `sd-api`.", "sd-api")


class OpenAIModelList(Schema):
    """The models, the default one first."""

    object = described(fields.String, "`list`.", "list")
    data = fields.List(
        fields.Nested(OpenAIModel), required=True, metadata={"description": "The models."}
    )


EXAMPLE: Final[Mapping[str, Any]] = {"prompt": "a lighthouse at dusk", "seed": 42}
