"""What a request may say: fields, limits and defaults, all taken from the settings."""

import difflib
import secrets
from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, post_load, validates_schema

from service.config import MOST_STEPS, SAMPLERS, Config
from service.diffusion.generation import GenerationRequest
from service.errors import ValidationFailed
from service.http.fields import Choice, RealNumber, Text, WholeNumber

UNKNOWN = "is not a field of this request"

SHOWN = 16
"""Unknown fields that are named; a body may hold thousands, and a suggestion costs 0.1 ms."""

LONGEST_NAME = 40
"""Longer names are cut and get no suggestion: its cost grows with the square of the length."""


class StrictSchema(Schema):
    """A JSON object in which every field is known; a near miss gets a suggestion."""

    class Meta:
        """Refuse what is not declared."""

        unknown = RAISE

    error_messages: dict[str, str] = {"unknown": UNKNOWN}  # noqa: RUF012 - declared so above

    def handle_error(self, error: ValidationError, data: Any, *, many: bool, **kwargs: Any) -> None:
        """Name unknown fields with the known one that was probably meant, but not thousands."""
        del many, kwargs
        if not isinstance(error.messages, dict) or not isinstance(data, Mapping):
            return
        unknown = [name for name in data if name in error.messages and name not in self.fields]
        for name in unknown:
            del error.messages[name]
        for name in unknown[:SHOWN]:
            if len(name) > LONGEST_NAME:
                error.messages[f"{name[:LONGEST_NAME]}…"] = [UNKNOWN]
                continue
            near = difflib.get_close_matches(name, self.fields, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            error.messages[name] = [f"{UNKNOWN}{meant}"]
        if len(unknown) > SHOWN:
            error.messages["body"] = [f"has {len(unknown) - SHOWN} more fields that are unknown"]


class GenerationSchema(StrictSchema):
    """An object that describes a generation."""

    @validates_schema(skip_on_field_errors=False)
    def _steps_of_the_sampler(self, data: dict[str, Any], **_: Any) -> None:
        sampler = data.get("sampler")
        most = MOST_STEPS.get(sampler or "")
        if most is not None and data.get("steps", 0) > most:
            cure = f"must be at most {most} with the sampler {sampler}; or take another sampler"
            raise ValidationError({"steps": [cure]})

    @post_load
    def _generation(self, data: dict[str, Any], **_: Any) -> GenerationRequest:
        return GenerationRequest(**data)


def random_seed() -> int:
    """Return a seed for a request that brought none."""
    return secrets.randbits(32)


def generation_schema(config: Config) -> Schema:
    """Build the schema of ``POST /generate`` with the limits and defaults in the settings."""

    def size(name: str) -> WholeNumber:
        return WholeNumber(
            low=config.min_size,
            high=config.max_size,
            multiple=64,
            example=config.default_size,
            load_default=config.default_size,
            metadata={"description": f"{name} of the picture in pixels."},
        )

    declared = {
        "prompt": Text(
            high=config.max_prompt_chars,
            blank=False,
            example="a lighthouse at dusk",
            required=True,
            metadata={"description": "What the picture shows."},
        ),
        "negative_prompt": Text(
            high=config.max_prompt_chars,
            example="fog",
            load_default="",
            metadata={"description": "What the picture shall not show."},
        ),
        "steps": WholeNumber(
            low=1,
            high=config.max_steps,
            example=config.default_steps,
            load_default=config.default_steps,
            metadata={"description": "Denoising steps: more take longer and add detail."},
        ),
        "width": size("Width"),
        "height": size("Height"),
        "seed": WholeNumber(
            low=0,
            high=2**32 - 1,
            example=42,
            load_default=random_seed,
            metadata={"description": "The same seed gives the same picture; random when left out."},
        ),
        "guidance_scale": RealNumber(
            low=0,
            high=30,
            example=config.default_guidance_scale,
            load_default=config.default_guidance_scale,
            metadata={"description": "How closely the picture follows the prompt."},
        ),
        "sampler": Choice(
            choices=SAMPLERS,
            load_default=config.default_sampler,
            metadata={"description": "How noise is taken away from step to step."},
        ),
        "num_images": WholeNumber(
            low=1,
            high=config.max_images,
            example=1,
            load_default=1,
            metadata={"description": "Pictures to make, with this seed and those that follow it."},
        ),
    }
    return GenerationSchema.from_dict(dict(declared), name="GenerationRequest")()


def read_request(fields: Mapping[str, Any], config: Config) -> GenerationRequest:
    """Check ``fields`` like a request's body and fill in the defaults.

    Raises:
        ValidationFailed: names every wrong field.

    """
    try:
        generation = generation_schema(config).load(dict(fields))
    except ValidationError as error:
        raise ValidationFailed(error.messages_dict) from error
    assert isinstance(generation, GenerationRequest)  # noqa: S101 - tells mypy what post_load made
    return generation
