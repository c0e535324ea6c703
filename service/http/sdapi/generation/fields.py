"""What requests for images take, for their readers and for the API description."""

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import ValidationError, fields

from service.core.spec import FIELDS, LONGEST_MODEL
from service.http.compat.reading import Flag, Passed
from service.http.schema.fields import Once, RealNumber, Text, WholeNumber

BY_NAME: Final = {each.name: each for each in FIELDS}
LONGEST_NAME: Final = 200
"""Characters of a name, or of the id of a task."""
MOST_ENTRIES: Final = 512
"""Of a list or an object; what AUTOMATIC1111 itself lists as options are some 300."""
MOST: Final = 1_000_000_000
FARTHEST: Final = 2.0**64
"""From 0; of numbers that change little or nothing here, and may be seeds of other servers."""

Entries = Mapping[str, Any]


class Object(Once, fields.Field[Any]):
    """A JSON object of a bounded size, whatever its entries are."""

    def __init__(self, description: str) -> None:
        super().__init__(
            load_default=dict,
            metadata={"type": "object", "description": description, "additionalProperties": True},
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Entries | None, **kwargs: Any
    ) -> dict[str, Any]:
        del attr, data, kwargs
        if not isinstance(value, dict):
            raise ValidationError("must be an object")
        if len(value) > MOST_ENTRIES:
            raise ValidationError(f"must have at most {MOST_ENTRIES} entries")
        return value


class Names(Once, fields.Field[Any]):
    """A list of names."""

    def __init__(self, description: str) -> None:
        super().__init__(
            load_default=list,
            metadata={
                "type": "array",
                "items": {"type": "string"},
                "description": description,
                "maxItems": MOST_ENTRIES,
            },
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Entries | None, **kwargs: Any
    ) -> list[str]:
        del attr, data, kwargs
        if not isinstance(value, list) or len(value) > MOST_ENTRIES:
            raise ValidationError(f"must be a list of at most {MOST_ENTRIES} names")
        if not all(isinstance(each, str) for each in value):
            raise ValidationError("must be a list of names")
        return value


class Images(Once, fields.Field[Any]):
    """Images in base64, or one of them; what they hold is read by others."""

    def __init__(self, description: str, *, one: bool = False) -> None:
        text = {"type": "string", "contentEncoding": "base64"}
        many = {"type": "array", "items": text, "minItems": 1, "maxItems": MOST_ENTRIES}
        self._one = one
        required = {"load_default": tuple} if one else {"required": True}
        super().__init__(
            error_messages={"required": "is required: a list of one image in base64"},
            metadata={**(text if one else many), "description": description},
            **required,
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Entries | None, **kwargs: Any
    ) -> tuple[Any, ...]:
        del attr, data, kwargs
        listed = [value] if self._one else value
        if not isinstance(listed, list) or len(listed) > MOST_ENTRIES:
            raise ValidationError("must be a list of images in base64")
        found = tuple(each for each in listed if each not in (None, ""))
        if not found and not self._one:
            raise ValidationError("must be a list of one image in base64")
        return found


class NamedImages(Once, fields.Field[Any]):
    """Images in base64, each in an object next to its name; what they hold is read by others."""

    def __init__(self, description: str, *, most: int) -> None:
        entry = {
            "type": "object",
            "required": ["data"],
            "properties": {
                "data": {"type": "string", "contentEncoding": "base64"},
                "name": {"type": "string"},
            },
        }
        about = {"type": "array", "items": entry, "minItems": 1, "maxItems": most}
        self._most = most
        # The braces are doubled for marshmallow, which formats every text.
        cure = f'must be a list of 1 to {most} images, e.g. [{{{{"data": base64}}}}]'
        super().__init__(
            required=True,
            error_messages=dict.fromkeys(("required", "invalid"), cure),
            metadata={**about, "description": description},
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Entries | None, **kwargs: Any
    ) -> tuple[Any, ...]:
        del attr, data, kwargs
        if not isinstance(value, list) or not 1 <= len(value) <= self._most:
            raise self.make_error("invalid")
        found = tuple(each.get("data") for each in value if isinstance(each, dict))
        if len(found) < len(value) or any(each in (None, "") for each in found):
            raise self.make_error("invalid")
        return found


def about(text: str) -> dict[str, Any]:
    """Return the metadata of a field with this description."""
    return {"description": text}


def name(text: str, example: str) -> Text:
    """Return the field of a name that may be empty."""
    return Text(high=LONGEST_NAME, example=example, load_default="", metadata=about(text))


def flag(text: str, *, default: bool = False) -> Flag:
    """Return a field that is true or false."""
    return Flag(load_default=default, metadata=about(text))


def count(text: str) -> WholeNumber:
    """Return the field of a number from 1."""
    return WholeNumber(low=1, high=MOST, example=1, load_default=1, metadata=about(text))


def number(text: str, default: float) -> RealNumber:
    """Return the field of a number that is None where it is left out; ``default`` is shown."""
    return RealNumber(
        low=-FARTHEST, high=FARTHEST, example=default, load_default=None, metadata=about(text)
    )


NOT_HERE: Final = "Not available here; `info.warnings` says so."

COMMON: Final[Mapping[str, Once]] = {
    "prompt": Passed(BY_NAME["prompt"]),
    "negative_prompt": Passed(BY_NAME["negative_prompt"]),
    "styles": Names("Names of prompt styles; there are none here."),
    "seed": Passed(BY_NAME["seed"]),
    "subseed": number("Seed of a variation; -1 is random. It needs `subseed_strength`.", -1),
    "subseed_strength": number(
        "Strength of the variation, from 0 to 1; with 0 there is no variation.", 0
    ),
    "seed_resize_from_h": number("Size that a seed was used at. " + NOT_HERE, -1),
    "seed_resize_from_w": number("Size that a seed was used at. " + NOT_HERE, -1),
    "sampler_name": name("Sampler, in any spelling of AUTOMATIC1111's.", "DPM++ 2M"),
    "sampler_index": name("Sampler, where `sampler_name` is left out.", "Euler a"),
    "scheduler": name(
        "Noise schedule by name or label; `automatic` is the sampler's own.", "Karras"
    ),
    "batch_size": count("Images; times `n_iter` at most MAX_IMAGES."),
    "n_iter": count("Batches, which are drawn as one job."),
    "steps": Passed(BY_NAME["steps"]),
    "cfg_scale": Passed(BY_NAME["guidance_scale"]),
    "width": Passed(BY_NAME["width"]),
    "height": Passed(BY_NAME["height"]),
    "clip_skip": Passed(
        BY_NAME["clip_skip"],
        description="Layer of the text encoder, from the end, as stable-diffusion.cpp takes "
        "it; 0 and less say nothing.",
    ),
    "eta": number("Share of new noise in each step of DDIM or TCD.", 0),
    "s_churn": number("Noise that Euler and Heun add. " + NOT_HERE, 0),
    "s_noise": number("Strength of that noise. " + NOT_HERE, 1),
    "restore_faces": flag(NOT_HERE),
    "tiling": flag(NOT_HERE),
    "refiner_checkpoint": name("Second model. " + NOT_HERE, ""),
    "script_name": name("Script. " + NOT_HERE, ""),
    "alwayson_scripts": Object("Extensions by name. " + NOT_HERE),
    "override_settings": Object("Options of `POST /sdapi/v1/options` for this request alone."),
    "override_settings_restore_afterwards": flag(
        "With false the options stay as after `POST /sdapi/v1/options`.", default=True
    ),
    "send_images": flag("Whether the answer has the images.", default=True),
    "save_images": flag("Images are never saved on the server; this changes nothing."),
    "force_task_id": name("Name of the request for `progress` and `interrupt`.", "task(abc)"),
    "model": Text(
        high=LONGEST_MODEL,
        example="demo",
        load_default="",
        metadata=about("Model, as stable-diffusion.cpp takes it."),
    ),
}
"""Fields of ``txt2img`` and ``img2img``."""
