"""Fields of a JSON body that hold an object: images as input, and what has fields of its own."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from marshmallow import Schema, ValidationError

from service.core.fields import RequestField
from service.core.inputs import InputImage
from service.http.schema.fields import Once

JSON_TYPES: Final[Mapping[type, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
}
SHOWN: Final = 16
"""Faults of one object that are named; a body may hold thousands."""
LONGEST_NAME: Final = 40

JOB_IMAGE: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["job"],
    "properties": {
        "job": {"type": "string", "description": "Id of a finished job of yours."},
        "index": {
            "type": "integer",
            "minimum": 0,
            "default": 0,
            "description": "Number of the image, from 0.",
        },
    },
}
BASE64: Final = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "A PNG, JPEG, WebP or AVIF file in base64, or as a data URI.",
}


class ImageField(Once):
    """An image that the reader of the body has taken: only a reference is left of it."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("metadata", {})["anyOf"] = [BASE64, JOB_IMAGE, {"type": "null"}]
        cure = (
            "must be an image file in base64 (PNG, JPEG, WebP or AVIF), or "
            '{{"job": id, "index": 0}} for a finished job of yours'
        )
        super().__init__(error_messages=dict.fromkeys(("invalid", "null"), cure), **kwargs)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> InputImage:
        del attr, data, kwargs
        if not isinstance(value, InputImage):
            raise self.make_error("invalid")
        return value


class ObjectField(Once):
    """A JSON object that becomes a dataclass; every fault is told with the field in it."""

    def __init__(
        self, kind: type, asked: Sequence[RequestField], built: Mapping[str, Once], **kwargs: Any
    ) -> None:
        self._kind = kind
        self.asked = {each.name: each for each in asked}
        self._schema = Schema.from_dict(dict(built), name=f"{kind.__name__}Fields")()
        names = ", ".join(self.asked)
        self._schema.error_messages["unknown"] = f"is not known; use {names}"
        kwargs.setdefault("metadata", {}).update(
            type="object",
            additionalProperties=False,
            properties={each.name: _property(each) for each in asked},
        )
        cure = f"must be an object with {names}"
        super().__init__(error_messages=dict.fromkeys(("invalid", "null"), cure), **kwargs)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Any:
        del attr, data, kwargs
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        try:
            return self._kind(**self._schema.load(value))
        except ValidationError as error:
            faults = islice(error.messages_dict.items(), SHOWN)
            raise ValidationError(
                [f"{str(name)[:LONGEST_NAME]}: {' '.join(words)}" for name, words in faults]
            ) from error


def _property(asked: RequestField) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": [JSON_TYPES[asked.kind], "null"],
        "description": asked.help,
        "default": asked.default,
        "examples": [asked.example],
    }
    if asked.choices:
        return found | {"enum": [*asked.choices, None]}
    if asked.low is not None:
        found |= {"minimum": asked.low, "maximum": asked.high}
    return found if asked.multiple == 1 else found | {"multipleOf": asked.multiple}
