"""Reading a body as generously as the products do that other APIs come from.

``null`` is as if a field were left out, numbers may be texts, and unknown fields are no error.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from marshmallow import EXCLUDE, Schema, ValidationError, fields, pre_load

from service.core.fields import RequestField
from service.errors import ValidationFailed
from service.http.body import read_json
from service.http.schema.fields import Once
from service.http.schema.objects import JSON_TYPES
from service.http.values import NUMBER

LONGEST_NUMBER: Final = 32
"""Characters of a number that is sent as text; ``int`` is slow for thousands, and then raises."""


async def read(request: web.Request) -> dict[str, Any]:
    """Return the body as a JSON object, all of its fields included.

    Raises:
        ServiceError: as ``read_json`` says.

    """
    return await read_json(request)


def number(value: Any) -> Any:
    """Return the number that a text is; every other value as it is."""
    if not isinstance(value, str) or len(value) > LONGEST_NUMBER:
        return value
    text = value.strip()
    if not NUMBER.fullmatch(text):
        return value
    return int(text) if text.lstrip("+-").isdigit() else float(text)


class Flag(Once, fields.Boolean):
    """True or false, also as a text or as 1 and 0."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(error_messages={"invalid": "must be true or false"}, **kwargs)


class Passed(Once):
    """A field of the native API, which is checked there with the limits of its model."""

    def __init__(
        self, asked: RequestField, *, description: str = "", required: bool = False
    ) -> None:
        others = "object" if asked.is_object else "array"
        kind: dict[str, Any] = {"type": JSON_TYPES.get(asked.kind, others)}
        if asked.choices:
            kind["enum"] = [*asked.choices, *([] if required else [None])]
        if asked.entries is not None:
            kind["items"] = {"type": "object"}
        about: dict[str, Any] = {"required": True} if required else {"load_default": None}
        super().__init__(
            error_messages={"required": f"is required: {asked.meaning.lower().rstrip('.')}"},
            metadata={**kind, "description": description or asked.help},
            **about,
        )


class LooseSchema(Schema):
    """A JSON object with fields that are known, and others that are ignored."""

    class Meta:
        """Leave out what is not declared."""

        unknown = EXCLUDE

    @pre_load
    def _generously(self, data: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        """Leave out null, and read texts as the numbers that they are."""
        numeric = {name for name, kind in self.fields.items() if isinstance(kind, fields.Number)}
        return {
            name: number(value) if name in numeric else value
            for name, value in data.items()
            if value is not None
        }


def load(schema: Schema, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields of a body, with the defaults of those that it leaves out.

    Raises:
        ValidationFailed: names every wrong field.

    """
    try:
        found: dict[str, Any] = schema.load(body)
    except ValidationError as error:
        raise ValidationFailed(error.messages_dict) from error
    return found


def ignored(schema: Schema, body: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields of a body that are not known."""
    return [name for name in body if name not in schema.fields]
