"""What ``txt2img`` takes, for its reader and for the API description."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from marshmallow import ValidationError, fields

from service.core.spec import FIELDS, LONGEST_MODEL
from service.http.compat.reading import Flag, LooseSchema, Passed
from service.http.schema.answers import described
from service.http.schema.fields import Once, RealNumber, Text, WholeNumber

BY_NAME: Final = {each.name: each for each in FIELDS}
LONGEST_NAME: Final = 200
"""Characters of a name, or of the id of a task."""
MOST_ENTRIES: Final = 512
"""Of a list or an object; what AUTOMATIC1111 itself lists as options are some 300."""
SHOWN: Final = 16
"""Unknown names that an answer lists."""
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


def _about(text: str) -> dict[str, Any]:
    return {"description": text}


def _name(text: str, example: str) -> Text:
    return Text(high=LONGEST_NAME, example=example, load_default="", metadata=_about(text))


def _flag(text: str, *, default: bool = False) -> Flag:
    return Flag(load_default=default, metadata=_about(text))


def _count(text: str) -> WholeNumber:
    return WholeNumber(low=1, high=MOST, example=1, load_default=1, metadata=_about(text))


def _number(text: str, default: float) -> RealNumber:
    return RealNumber(
        low=-FARTHEST, high=FARTHEST, example=default, load_default=None, metadata=_about(text)
    )


NOT_HERE: Final = "Not available here; `info.warnings` says so."

TextToImage: Final = LooseSchema.from_dict(
    {
        "prompt": Passed(BY_NAME["prompt"]),
        "negative_prompt": Passed(BY_NAME["negative_prompt"]),
        "styles": Names("Names of prompt styles; there are none here."),
        "seed": Passed(BY_NAME["seed"]),
        "subseed": _number("Seed of a variation. " + NOT_HERE, -1),
        "subseed_strength": _number("Strength of a variation. " + NOT_HERE, 0),
        "seed_resize_from_h": _number("Size that a seed was used at. " + NOT_HERE, -1),
        "seed_resize_from_w": _number("Size that a seed was used at. " + NOT_HERE, -1),
        "sampler_name": _name("Sampler, in any spelling of AUTOMATIC1111's.", "DPM++ 2M"),
        "sampler_index": _name("Sampler, where `sampler_name` is left out.", "Euler a"),
        "scheduler": _name(
            "Noise schedule by name or label; `automatic` is the sampler's own.", "Karras"
        ),
        "batch_size": _count("Images; times `n_iter` at most MAX_IMAGES."),
        "n_iter": _count("Batches, which are drawn as one job."),
        "steps": Passed(BY_NAME["steps"]),
        "cfg_scale": Passed(BY_NAME["guidance_scale"]),
        "width": Passed(BY_NAME["width"]),
        "height": Passed(BY_NAME["height"]),
        "clip_skip": Passed(
            BY_NAME["clip_skip"],
            description="Layer of the text encoder, from the end, as stable-diffusion.cpp takes "
            "it; 0 and less say nothing.",
        ),
        "eta": _number("Share of new noise in each step of DDIM or TCD.", 0),
        "s_churn": _number("Noise that Euler and Heun add. " + NOT_HERE, 0),
        "s_noise": _number("Strength of that noise. " + NOT_HERE, 1),
        "denoising_strength": _number("Strength of the second pass; without one nothing.", 0),
        "enable_hr": _flag("Second pass in a larger size: must be false for now."),
        "restore_faces": _flag(NOT_HERE),
        "tiling": _flag(NOT_HERE),
        "refiner_checkpoint": _name("Second model. " + NOT_HERE, ""),
        "script_name": _name("Script. " + NOT_HERE, ""),
        "alwayson_scripts": Object("Extensions by name. " + NOT_HERE),
        "override_settings": Object("Options of `POST /sdapi/v1/options` for this request alone."),
        "override_settings_restore_afterwards": _flag(
            "With false the options stay as after `POST /sdapi/v1/options`.", default=True
        ),
        "send_images": _flag("Whether the answer has the images.", default=True),
        "save_images": _flag("Images are never saved on the server; this changes nothing."),
        "force_task_id": _name("Name of the request for `progress` and `interrupt`.", "task(abc)"),
        "model": Text(
            high=LONGEST_MODEL,
            example="demo",
            load_default="",
            metadata=_about("Model, as stable-diffusion.cpp takes it."),
        ),
    },
    name="TextToImageRequest",
)
REQUEST: Final = TextToImage()
EXAMPLE: Final = {"prompt": "a lighthouse at dusk", "steps": 20, "seed": 42}

TextToImageAnswer: Final = LooseSchema.from_dict(
    {
        "images": described(
            partial(fields.List, fields.String()),
            "The images as base64, without a prefix; empty with `send_images: false` and for a "
            "job that was interrupted while it waited.",
            ["iVBORw0KGgo…"],
        ),
        "parameters": described(fields.Dict, "Known fields of the request.", {"steps": 20}),
        "info": described(
            fields.String,
            "A JSON object: `all_seeds`, `infotexts`, `sampler_name` and so on, and `warnings`: "
            "what was not done as asked.",
            '{"seed": 42, "all_seeds": [42]}',
        ),
    },
    name="TextToImageAnswer",
)

LOUD: Final[Mapping[str, tuple[Any, ...]]] = {
    "subseed_strength": (0,),
    "seed_resize_from_h": (-1, 0),
    "seed_resize_from_w": (-1, 0),
    "s_churn": (0,),
    "s_noise": (1,),
    "restore_faces": (False,),
    "tiling": (False,),
    "refiner_checkpoint": ("", "None"),
    "script_name": ("", "None"),
}
"""Fields whose other values ask for what this service does not do."""


def not_done(sent: Mapping[str, Any]) -> list[str]:
    """Return a line for everything that a request asks for and that is not done."""
    found = [
        f"{name}: this service does not do it."
        for name, quiet in LOUD.items()
        if sent[name] is not None and sent[name] not in quiet
    ]
    found += [f"alwayson_scripts: there is no {name}." for name in _shown(sent["alwayson_scripts"])]
    found += [f"styles: there is no {name}." for name in _shown(sent["styles"]) if name != "None"]
    return found


def _shown(names: Any) -> list[str]:
    shown = [repr(name[:64]) if not name.isprintable() else name[:64] for name in names]
    if len(shown) > SHOWN:
        return [*shown[:SHOWN], f"other ({len(shown) - SHOWN} more names)"]
    return shown


def echoed(sent: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request as its answer repeats them: those that are known.

    Clients send passwords and images in others. ``overrides`` are the known options of the
    request.
    """
    kept = {name: value for name, value in sent.items() if _plain(value)}
    return {
        **kept,
        "styles": [each[:LONGEST_NAME] for each in sent["styles"]],
        "alwayson_scripts": {name: {"args": []} for name in _shown(sent["alwayson_scripts"])},
        "override_settings": dict(overrides),
    }


def _plain(value: Any) -> bool:
    finite = not isinstance(value, float) or math.isfinite(value)
    return finite and (value is None or isinstance(value, str | int | float))
