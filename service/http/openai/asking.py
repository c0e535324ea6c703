"""From the body of a request to the fields of the native API, with what cannot be honoured."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from marshmallow import Schema

from service.errors import ValidationFailed
from service.http.accept import image_format
from service.http.compat.reading import ignored, load, number
from service.http.finished import Form
from service.http.openai.schema import NATIVE, REQUEST, URL
from service.images.encode import MEDIA_TYPES
from service.models.served.catalog import DEFAULT, ModelCatalog

SIZE: Final = re.compile(r"\s*([0-9]{1,6})\s*[xX*]\s*([0-9]{1,6})\s*", re.ASCII)
"""``512x512``; one server writes a star."""

OTHER_PRODUCTS: Final = re.compile(r"(?:dall-e|gpt-image|chatgpt-image)-.*", re.DOTALL)
"""Names of OpenAI's models, which clients send whatever is there."""

AUTO: Final = "auto"
LOSSLESS: Final = 100
SHOWN: Final = 16
"""Ignored fields that are named; a body may hold thousands."""

LONGEST: Final = 40
"""Characters of a name or value that a warning repeats."""

REASONS: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "quality": (frozenset({AUTO}), "steps decide; send num_inference_steps"),
    "style": (frozenset(), "the prompt decides"),
    "background": (frozenset({AUTO, "opaque"}), "images are opaque"),
    "moderation": (frozenset({AUTO}), "the operator decides (SAFETY_CHECKER)"),
    "input_fidelity": (frozenset({"low"}), "strength decides"),
}
"""Fields that change nothing: the values that need no warning, and the words of one."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request: native values, the client's names of native fields, and the answer's form."""

    values: Mapping[str, Any]
    names: Mapping[str, str]
    form: Form
    output_format: str
    url: bool
    stream: bool
    partial_images: int
    warnings: tuple[str, ...]
    events: str = "image_generation"
    """How the names of a stream's events begin."""
    size: tuple[int, int] = (0, 0)
    """Width and height in pixels of the images, once that is known."""


def asked(body: Mapping[str, Any], models: ModelCatalog, schema: Schema = REQUEST) -> Asked:
    """Read the body of a request, without the images in it.

    Raises:
        ValidationFailed: names every wrong field that is not one of the native API.

    """
    given = load(schema, body)
    warnings = [*_without_effect(given), *_ignored(body, schema)]
    values = {each: _unpacked(given[each]) for each in NATIVE if each in given}
    names = {"num_images": "n"}
    values |= {"prompt": given["prompt"], "num_images": given["n"]}
    values["model"] = model_of(given["model"], models)
    if values["steps"] is None and given["num_inference_steps"] is not None:
        values["steps"], names["steps"] = given["num_inference_steps"], "num_inference_steps"
    if given["lora"] is not None:
        values["adapters"], names["adapters"] = _adapters(given), "lora"
    size = _size(given["size"])
    for side, pixels in zip(("width", "height"), size, strict=True):
        if values[side] is None and pixels is not None:
            values[side], names[side] = pixels, "size"
    form, output_format = _form(given, warnings)
    return Asked(
        values=values,
        names=names,
        form=form,
        output_format=output_format,
        url=given["response_format"] == URL,
        stream=given["stream"],
        partial_images=given["partial_images"],
        warnings=tuple(warnings),
    )


def model_of(name: str, models: ModelCatalog) -> str:
    """Return the model that a client means by a name; an unknown one stays."""
    return DEFAULT if not models.knows(name) and OTHER_PRODUCTS.fullmatch(name) else name


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text is None or text.strip().lower() in {AUTO, ""}:
        return None, None
    if not (match := SIZE.fullmatch(text)):
        raise ValidationFailed({"size": ["must be WIDTHxHEIGHT in pixels, e.g. 512x512, or auto"]})
    return int(match[1]), int(match[2])


def _form(given: Mapping[str, Any], warnings: list[str]) -> tuple[Form, str]:
    named = given["output_format"] or "png"
    found = image_format(named.strip())
    if found not in MEDIA_TYPES:
        warnings.append(f"output_format: there is no {named[:LONGEST]}; the image is a png.")
        found = "png"
    quality = given["output_compression"]
    if found == "png" and quality not in (None, LOSSLESS):
        warnings.append("output_compression: it is for webp and jpeg; a png loses nothing.")
    if quality is not None:
        lossless = quality == LOSSLESS and found == "webp"
        quality = None if lossless else max(1, quality)
    return Form(media_type=MEDIA_TYPES[found], quality=quality), found


def _adapters(given: Mapping[str, Any]) -> Any:
    """Return adapters as the native API takes them; what is none is left to it to refuse."""
    lora, others = (_unpacked(given[each]) for each in ("lora", "adapters"))
    listed = lora if isinstance(lora, list) else [lora]
    others = others if isinstance(others, list) else []
    return [*others, *map(_adapter, listed)]


def _adapter(entry: Any) -> Any:
    if isinstance(entry, str):
        name, colon, weight = entry.rpartition(":")
        return {"name": name, "weight": number(weight)} if colon else {"name": entry}
    if not isinstance(entry, Mapping):
        return entry
    weight = entry.get("weight", entry.get("scale"))
    found = {"name": entry.get("name"), "weight": number(weight)}
    found["text_weight"] = number(entry.get("text_weight"))
    return {name: value for name, value in found.items() if value is not None}


def _unpacked(value: Any) -> Any:
    """Return what a part of a form holds that is JSON; every other value as it is."""
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _without_effect(given: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {given[name][:LONGEST]} changes nothing here; {reason}."
        for name, (silent, reason) in REASONS.items()
        if given.get(name) is not None and given[name].strip().lower() not in silent
    ]


def _ignored(body: Mapping[str, Any], schema: Schema) -> list[str]:
    names = ignored(schema, body)
    return [f"{name[:LONGEST]}: is not a field that this service knows." for name in names[:SHOWN]]
