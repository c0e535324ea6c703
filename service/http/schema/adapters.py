"""The adapters of a request: how they are written, and that there are such adapters."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from marshmallow import Schema, ValidationError, validate

from service.core.prompt.syntax import PromptSyntax
from service.core.prompt.words import may_name_any, texts, texts_by_field
from service.core.spec import Adapter, GenerationSpec
from service.errors import AdapterUnsuitable, ValidationFailed
from service.http.schema.fields import ANYTHING, Once, RealNumber, Text
from service.models.adapters.catalog import LONGEST_NAME, AdapterCatalog

MOST_WEIGHT: Final = 10.0
"""Beyond it, in both directions, nothing but noise is left of an image."""

WEIGHT: Final[Mapping[str, Any]] = {"low": -MOST_WEIGHT, "high": MOST_WEIGHT}
SHOWN: Final = 16
"""Faults of one entry that are named; a body may hold thousands."""

NAME: Final = "Name of the adapter, as `GET /models/adapters` lists it."
STRENGTH: Final = "Strength of its changes: 1 is as it was trained, 0 is nothing."
TEXT_STRENGTH: Final = "Strength of its changes to the text encoders; `weight` if left out."


class AdapterList(Once):
    """A list of adapters, each a JSON object; every fault is told with the place in the list."""

    def __init__(self, *, most: int, **kwargs: Any) -> None:
        self._most = most
        self._entry = Schema.from_dict(
            {
                "name": Text(high=LONGEST_NAME, blank=False, example="ink", required=True),
                "weight": RealNumber(**WEIGHT, example=0.8, load_default=1.0),
                "text_weight": RealNumber(**WEIGHT, example=0.8, load_default=None),
            },
            name="AdapterEntry",
        )()
        self._entry.error_messages["unknown"] = "is not known; use name, weight and text_weight"
        number = {"type": "number", "minimum": -MOST_WEIGHT, "maximum": MOST_WEIGHT}
        kwargs.setdefault("metadata", {}).update(
            type="array",
            maxItems=most,
            examples=[[]],
            items={
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    "name": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": LONGEST_NAME,
                        "pattern": ANYTHING,
                        "description": NAME,
                    },
                    "weight": {**number, "default": 1.0, "description": STRENGTH},
                    "text_weight": {**number, "description": TEXT_STRENGTH},
                },
            },
        )
        # The braces are doubled for marshmallow, which formats every text.
        cure = f'must be a list of up to {most} adapters, e.g. [{{{{"name": "ink"}}}}]'
        super().__init__(
            error_messages=dict.fromkeys(("invalid", "null"), cure),
            validate=validate.Length(max=most, error=cure),
            **kwargs,
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> tuple[Adapter, ...]:
        del attr, data, kwargs
        if not isinstance(value, list) or len(value) > self._most:
            raise self.make_error("invalid")
        faults: list[str] = []
        found = [self._one(each, place, faults) for place, each in enumerate(value, 1)]
        names = [each.name for each in found if each is not None]
        twice = sorted({name for name in names if names.count(name) > 1})
        faults += [f"{name} is given more than once; add up its weights" for name in twice]
        if faults:
            raise ValidationError(faults)
        return tuple(each for each in found if each is not None)

    def _one(self, value: Any, place: int, faults: list[str]) -> Adapter | None:
        if not isinstance(value, dict):
            faults.append(f'entry {place} must be an object, e.g. {{"name": "ink"}}')
            return None
        try:
            read: Any = self._entry.load(value)
        except ValidationError as error:
            for name, words in islice(error.messages_dict.items(), SHOWN):
                faults.append(f"entry {place}: {str(name)[:LONGEST_NAME]}: {' '.join(words)}")
            return None
        if read["text_weight"] is None:
            read["text_weight"] = read["weight"]
        return Adapter(**read)


def demand_adapters(generation: GenerationSpec, catalog: AdapterCatalog, family: str) -> None:
    """Refuse adapters and embeddings that are missing, damaged, or made for another family.

    It reads files. ``family`` is that of the model, or of the adapters for it; what headers do not
    tell the engine finds out, as it does where ``family`` is empty.

    Raises:
        ValidationFailed: with what is wrong with each.

    """
    faults: dict[str, list[str]] = {}
    for adapter in generation.adapters:
        try:
            catalog.find(adapter.name, family)
        except AdapterUnsuitable as error:
            faults.setdefault("adapters", []).append(error.detail)
    bare = generation.prompt_syntax != PromptSyntax.PLAIN
    for field, written in texts_by_field(generation).items():
        try:
            catalog.embeddings_in(written, bare=bare, family=family)
        except AdapterUnsuitable as error:
            faults.setdefault(field, []).append(error.detail)
    if faults:
        raise ValidationFailed(faults)


def may_need_files(generation: GenerationSpec) -> bool:
    """Tell whether a request may name files: adapters, or embeddings in its texts."""
    if generation.adapters or generation.prompt_syntax != PromptSyntax.PLAIN:
        return True
    return may_name_any(texts(generation), bare=False)
