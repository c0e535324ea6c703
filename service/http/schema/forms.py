"""Bodies in multipart/form-data, described by the same schemas that describe them in JSON."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema, fields

from service.http.schema.fields import Once
from service.http.schema.objects import BASE64, ImageField

Described = Mapping[str, Any]
"""A JSON schema."""

BINARY: Final = {"type": "string", "format": "binary"}
ITSELF: Final = "In a form, the file itself."
NESTED: Final = frozenset({"object", "array"})
NULL: Final = "null"
NEXT_TO: Final = ("description", "examples")
"""What is said of a field that is a text in a form, next to what the text holds."""


class File(Once):
    """A file of a form, or the same in base64; the reader of uploads takes both.

    With ``several`` a form may have more than one, by the name with brackets.
    """

    def __init__(self, description: str, *, required: bool = False, several: bool = False) -> None:
        given: dict[str, Any] = {"required": True} if required else {"load_default": None}
        super().__init__(
            error_messages={"required": "is required: the file of an image"},
            metadata={**BASE64, "description": description},
            **given,
        )
        self.several = several


def bracketed(name: str) -> str:
    """Return the name of each of several parts, as clients in PHP's manner write it."""
    return f"{name}[]"


def has_form(schema: Schema) -> bool:
    """Tell whether a body may be a form: it may bring files."""
    return any(isinstance(each, File | ImageField) for each in schema.fields.values())


def form_of(schema: Schema, converter: OpenAPIConverter) -> dict[str, Any]:
    """Return the JSON schema of a form with the fields of a schema.

    A form has no null. Files are parts of their own, objects and lists are JSON in a text, and
    everything else is written as in JSON, without quotes.
    """
    inside: Described = converter.schema2jsonschema(schema)  # type: ignore[no-untyped-call]
    parts = dict(_parts(schema.fields, inside["properties"]))
    required = [name for name in inside.get("required", ()) if bracketed(name) not in parts]
    either = [
        {"anyOf": [{"required": [name]}, {"required": [bracketed(name)]}]}
        for name in inside.get("required", ())
        if bracketed(name) in parts
    ]
    found = {**inside, "properties": parts, "required": required}
    return found | {"allOf": either} if either else found


def without_files(schema: Schema, example: Described) -> dict[str, Any]:
    """Return the example of a body in JSON as that of a form, whose files no text can show."""
    files = {k for k, v in schema.fields.items() if isinstance(v, File | ImageField)}
    return {name: value for name, value in example.items() if name not in files}


def _parts(
    asked: Mapping[str, fields.Field[Any]], inside: Mapping[str, Described]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, about in inside.items():
        field = asked[name]
        if isinstance(field, ImageField):
            yield name, {**BINARY, "description": f"{about['description']} {ITSELF}"}
        elif isinstance(field, File):
            yield name, {**BINARY, "description": about["description"]}
            if field.several:
                several = f"The same as `{name}`, several times; the first is taken."
                yield bracketed(name), {"type": "array", "items": BINARY, "description": several}
        else:
            yield name, _text(_without_null(about))


def _without_null(about: Described) -> dict[str, Any]:
    kinds = about["type"] if isinstance(about["type"], list) else [about["type"]]
    found = {**about, "type": [each for each in kinds if each != NULL]}
    if "enum" in found:
        found["enum"] = [each for each in found["enum"] if each is not None]
    return {name: value for name, value in found.items() if (name, value) != ("default", None)}


def _text(about: Described) -> dict[str, Any]:
    """Return a field as the text of its part."""
    kinds = about["type"]
    if not NESTED & {*kinds}:
        return {**about, "type": kinds[0]}
    next_to = {name: about[name] for name in NEXT_TO if name in about}
    if "examples" in next_to:
        next_to["examples"] = [json.dumps(each) for each in next_to["examples"]]
    if "string" in kinds:  # It may be a name, too.
        return {"type": "string", **next_to}
    held = {name: value for name, value in about.items() if name not in NEXT_TO}
    content = {**held, "type": kinds[0]}
    kind = {"type": "string", "contentMediaType": "application/json", "contentSchema": content}
    return {**kind, **next_to}
