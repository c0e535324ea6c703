"""Schema of a request: the declared fields, with the limits and defaults of the settings."""

import difflib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, post_load, pre_load, validates_schema

from service.core.fields import RequestField
from service.core.inputs import Hires, InputImage
from service.core.limits import RequestLimits
from service.core.prompt import language
from service.core.prompt.syntax import LongPrompts, PromptSyntax
from service.core.sampler import ALIASES, ETA, Sampler, Schedule, fitting, resolved
from service.core.spec import FIELDS, MOST_ADAPTERS, RANDOM_SEED, GenerationSpec, declared
from service.errors import ValidationFailed
from service.http.schema.adapters import AdapterList
from service.http.schema.fields import Choice, Once, RealNumber, Text, Truth, WholeNumber
from service.http.schema.objects import ImageField, ObjectField
from service.http.schema.starts import faults, with_size
from service.models.adapters.catalog import LONGEST_NAME as LONGEST_ADAPTER
from service.models.defaults.adapters import values_for

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
        sampler, _schedule = resolved(data.get("sampler", ""))
        most = Sampler(sampler).most_steps if sampler else None
        if most is not None and data.get("steps", 0) > most:
            cure = f"must be at most {most} with the sampler {sampler}; or take another sampler"
            raise ValidationError({"steps": [cure]})

    @pre_load
    def _left_out(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Fill in what the recipe of an adapter says, and leave to a sampler what it takes."""
        filled = _with_recipe(data, self.fields)
        with_schedule = _with_schedule(filled, data, self.fields["schedule"].load_default)
        return _with_eta(with_schedule, data)

    @validates_schema(skip_on_field_errors=False)
    def _samplers_with_eta(self, data: dict[str, Any], **_: Any) -> None:
        sampler = data.get("sampler")
        if data.get("eta") and sampler is not None and sampler not in ETA:
            takes = " or ".join(ETA)
            raise ValidationError(
                {"eta": [f"must be 0 with the sampler {sampler}; {takes} takes it"]}
            )

    @pre_load
    def _size_of_the_image(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return with_size(data, *self._sides)

    @validates_schema(skip_on_field_errors=False)
    def _start(self, data: dict[str, Any], **_: Any) -> None:
        hires: Any = self.fields["hires"]
        if found := faults(data, self._sides[0], hires.asked["width"].high):
            raise ValidationError(found)

    @property
    def _sides(self) -> tuple[int, int]:
        allowed: Any = self.fields["width"].validate
        return allowed.min, allowed.max

    @pre_load
    def _long_prompts_of_the_syntax(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Let AUTOMATIC1111's syntax read in chunks unless the request says otherwise."""
        says = data.get("long_prompts") is not None
        if says or data.get("prompt_syntax") != PromptSyntax.A1111:
            return data
        return {**data, "long_prompts": LongPrompts.CHUNKS.value}

    @validates_schema(skip_on_field_errors=False)
    def _prompts_in_the_syntax(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("prompt_syntax") != PromptSyntax.A1111:
            return
        prompt = language.parse(data.get("prompt", ""))
        negative = language.parse(data.get("negative_prompt", ""), negative=True)
        steps, hires = data.get("steps", 1), data.get("hires")
        more = (hires.steps or steps) if isinstance(hires, Hires) else 0
        adapters = prompt.faults_next_to(data.get("adapters", ()))
        found = {
            "prompt": [*prompt.faults_in(steps, more), *adapters],
            "negative_prompt": negative.faults_in(steps, more),
        }
        if any(found.values()):
            raise ValidationError({name: faults for name, faults in found.items() if faults})

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _schedule_of_the_sampler(
        self, data: dict[str, Any], original: Mapping[str, Any], **_: Any
    ) -> None:
        named, schedule = data.get("sampler", ""), data.get("schedule", "")
        if not named or not schedule:
            return
        sampler, meant = resolved(named)
        if named in ALIASES and named == original.get("sampler") and schedule != meant:
            if schedule != Schedule.AUTOMATIC:
                cure = f"must be {meant} with {named}; or name the sampler {sampler}"
                raise ValidationError({"schedule": [cure]})
        elif schedule not in Sampler(sampler).schedules:
            follows = Sampler(sampler).schedules
            known = f"one of {', '.join(follows)}" if len(follows) > 1 else follows[0]
            others = ", ".join(each for each in Sampler if schedule in each.schedules)
            cure = f"must be {known} with the sampler {sampler}; {schedule} works with "
            raise ValidationError({"schedule": [cure + others]})

    @post_load
    def _generation(self, data: dict[str, Any], **_: Any) -> Any:
        return generation_of(data)


def _with_recipe(data: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what an adapter for few steps wants; what is wrong is left to the fields."""
    listed = data.get("adapters")
    entries = listed[:MOST_ADAPTERS] if isinstance(listed, list) else []
    named = [each.get("name") for each in entries if isinstance(each, dict)]
    names = [name for name in named if isinstance(name, str) and len(name) <= LONGEST_ADAPTER]
    prompt = data.get("prompt")
    if data.get("prompt_syntax") == PromptSyntax.A1111 and isinstance(prompt, str):
        # Longer ones are refused, and take long to read.
        read = language.parse(prompt[: fields["prompt"].metadata["maxLength"]])
        names += [each.name for each in read.adapters]
    given = [name for name, value in data.items() if value is not None]
    return {**data, **values_for(names, given, fields["steps"].validate.max)}


def _with_schedule(
    filled: dict[str, Any], asked: Mapping[str, Any], default: str
) -> dict[str, Any]:
    """Leave a schedule that the request does not name to the samplers that follow it."""
    sampler = filled.get("sampler")
    if asked.get("schedule") is not None or sampler is None:
        return filled
    return {**filled, "schedule": fitting(filled.get("schedule") or default, sampler)}


def _with_eta(filled: dict[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the eta of a recipe to the samplers that take one."""
    sampler = filled.get("sampler")
    if asked.get("eta") is None and sampler is not None and sampler not in ETA:
        return {**filled, "eta": 0}
    return filled


def random_in(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the seeds that checked fields leave to the service."""
    names = ("seed", "subseed") if data["subseed_strength"] else ("seed",)
    return tuple(name for name in names if data[name] == RANDOM_SEED)


def generation_of(data: Mapping[str, Any]) -> GenerationSpec:
    """Return the generation that checked fields describe, with a seed for one that is random."""
    seeds = {name: secrets.randbits(32) for name in random_in(data)}
    request = GenerationSpec(**{**data, **seeds})
    if request.prompt_syntax == PromptSyntax.PLAIN:
        return request
    named = language.parse(request.prompt).adapters_next_to(request.adapters)
    return replace(request, adapters=tuple(named))


def generation_schema(limits: RequestLimits) -> Schema:
    """Build the schema of a generation with these limits and defaults."""
    built = {each.name: _built(each.within(limits), limits) for each in FIELDS}
    return GenerationSchema.from_dict(dict(built), name="GenerationRequest")()


def _built(asked: RequestField, limits: RequestLimits) -> Once:
    """Return the field that reads what is declared."""
    given = {"required": True} if asked.required else {"load_default": asked.default}
    about: dict[str, Any] = {**given, "metadata": {"description": asked.help}}
    if asked.is_object or asked.entries is not None:
        return _of_objects(asked, limits, about)
    if asked.choices:
        return Choice(choices=asked.choices, **about)
    if asked.is_text or asked.catalog:
        return Text(high=asked.high, blank=asked.blank, example=asked.example, **about)
    if asked.kind is bool:
        return Truth(**about)
    about |= {"low": asked.low, "high": asked.high, "example": asked.example}
    return (
        RealNumber(**about)
        if asked.kind is float
        else WholeNumber(multiple=asked.multiple, **about)
    )


def _of_objects(asked: RequestField, limits: RequestLimits, about: dict[str, Any]) -> Once:
    if asked.entries is not None:
        return AdapterList(most=asked.high, **about)
    if asked.kind is InputImage:
        return ImageField(**about)
    inner = [each.within(limits) for each in declared(asked.kind)]
    built = {each.name: _built(each, limits) for each in inner}
    return ObjectField(asked.kind, inner, built, **about)


def read_request(fields: Mapping[str, Any], limits: RequestLimits) -> GenerationSpec:
    """Check ``fields`` like a request's body and fill in the defaults.

    Raises:
        ValidationFailed: names every wrong field.

    """
    try:
        generation = generation_schema(limits).load(dict(fields))
    except ValidationError as error:
        raise ValidationFailed(error.messages_dict) from error
    assert isinstance(generation, GenerationSpec)  # noqa: S101 - tells mypy what post_load made
    return generation
