"""Write the tables of docs/API.md; ``--check`` only says whether they are current.

Routes, fields and error codes come from the description that the service itself answers at
``/openapi.json``. What to do about an error is written by hand in the document itself and stays
with its code.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from scripts.written import filled, keep_current
from service.app import create_app
from service.config.table import Config
from service.errors import KINDS, ServiceError
from service.http.route import Access
from service.http.schema import openapi
from service.http.state import ROUTES
from tests.support.simulation.fake_engine import FakeEngine

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "API.md"
CURE: Final = re.compile(r"^\| `(\w+)` \| (?:\d+|) \|.*\| ([^|]*) \|$", re.MULTILINE)
REFERENCE: Final = "#/components/responses/"
AT_START: Final = "Do what the line says that ends the start."
METHODS: Final = ("get", "post", "delete")
KEY: Final = {
    Access.PUBLIC: "no",
    Access.OPTIONAL_KEY: "tells more with one",
    Access.KEY: "yes",
    Access.METRICS_TOKEN: "`METRICS_TOKEN`",
}


def service() -> web.Application:
    """Return a service with the default settings, and a model without a recipe."""
    return create_app(Config(data_dir="data", model_id="organisation/name"), FakeEngine())


def description() -> Any:
    """Return the API description of that service."""
    return json.loads(openapi.current(service()))


def codes(operation: Mapping[str, Any]) -> list[str]:
    """Return the codes of the errors that an operation may answer."""
    found: list[str] = []
    for status, response in operation["responses"].items():
        if "$ref" in response:
            found.append(response["$ref"].removeprefix(REFERENCE))
        elif int(status) >= 400:  # noqa: PLR2004 - the first status of an error
            for content in response["content"].values():
                found += content["examples"]
    return found


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield path, method and description of each route, in the order of the document."""
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield path, method, methods[method]


def common(document: Any) -> list[str]:
    """Return the codes that every route may answer."""
    first, *others = [codes(operation) for _, _, operation in operations(document)]
    return [code for code in first if all(code in other for other in others)]


def routes(document: Any) -> Iterator[str]:
    """Return the table of routes."""
    everywhere = common(document)
    keys = {row.path: KEY[row.access] for row in service()[ROUTES].rows}
    yield "| Route | What it does | Key | Its own errors |"
    yield "|---|---|---|---|"
    for path, method, operation in operations(document):
        own = ", ".join(f"`{code}`" for code in codes(operation) if code not in everywhere)
        yield f"| `{method.upper()} {path}` | {operation['summary']} | {keys[path]} | {own} |"
    yield ""
    yield f"Every route may also answer {', '.join(f'`{code}`' for code in everywhere)}."


def parameters(document: Any) -> Iterator[str]:
    """Return the table of what stands in paths and queries."""
    yield "| Route | Parameter | In | What it may be | Default |"
    yield "|---|---|---|---|---|"
    for path, method, operation in operations(document):
        for one in operation["parameters"]:
            if one["in"] != "header":
                limits, default = _limits(one["schema"]), _default(one["schema"])
                where = f"`{method.upper()} {path}` | `{one['name']}` | {one['in']}"
                yield f"| {where} | {limits} | {default} |"


def errors(document: Any, cures: Mapping[str, str]) -> Iterator[str]:
    """Return the table of error codes; those that no route answers come last, without a status."""
    yield "| Code | Status | Title | What to do |"
    yield "|---|---|---|---|"
    said = answered(document)
    for kind in sorted(kinds(), key=lambda kind: kind.code not in said):
        status = str(kind.status) if kind.code in said else ""
        title = (kind.__doc__ or "").strip().rstrip(".")
        cure = cures.get(kind.code, "" if status else AT_START)
        yield f"| `{kind.code}` | {status} | {title} | {cure} |"


def answered(document: Any) -> set[str]:
    """Return the codes that requests are answered with."""
    found = {code for _, _, operation in operations(document) for code in codes(operation)}
    return found | {"not_found", "method_not_allowed"}  # Of addresses that are no route.


def kinds() -> list[type[ServiceError]]:
    """Return every kind of error, by status and then as the code has them."""
    return sorted((ServiceError, *KINDS.values()), key=lambda kind: kind.status)


def fields(document: Any, name: str) -> Iterator[str]:
    """Return the fields of a schema; whether they must be there is said of requests only."""
    schema = document["components"]["schemas"][name]
    if name in {"GenerationRequest", "JobOrder", "OpenAIImageRequest"}:
        yield "| Field | Type | Default | Limits | Meaning |"
        yield "|---|---|---|---|---|"
        for field, about in schema["properties"].items():
            default = "*required*" if field in schema.get("required", []) else _default(about)
            meaning = _said(about)
            cells = (f"`{field}`", _type(about), default, _limits(about), meaning)
            yield f"| {' | '.join(cells)} |"
        return
    yield "| Field | Type | Meaning |"
    yield "|---|---|---|"
    for field, about in schema["properties"].items():
        yield f"| `{field}` | {_type(about)} | {_meaning(about)} |"


def _reference(about: Mapping[str, Any]) -> str:
    """Return the name of the schema that a field refers to; empty for none."""
    for one in (about, *about.get("anyOf", ()), *about.get("allOf", ())):
        if "$ref" in one:
            return str(one["$ref"]).rpartition("/")[2]
    return ""


def _type(about: Mapping[str, Any]) -> str:
    if reference := _reference(about):
        null = any(one.get("type") == "null" for one in about.get("anyOf", ()))
        return f"[{reference}](#{reference.lower()}){' or null' if null else ''}"
    if "anyOf" in about:
        return " or ".join(_type(one) for one in about["anyOf"])
    kinds = about.get("type", "object")
    listed = [kinds] if isinstance(kinds, str) else list(kinds)
    if "array" in listed:
        inner = _type(about["items"])
        return f"array of {inner}"
    return " or ".join(listed)


def _limits(about: Mapping[str, Any]) -> str:
    if "enum" in about:
        return ", ".join(f"`{value}`" for value in about["enum"] if value is not None)
    said = []
    if "minLength" in about:
        said.append(f"{about['minLength']}-{about['maxLength']} characters")
    if "minimum" in about:
        dash = "-" if about["minimum"] >= 0 else " to "
        most = f"{dash}{_number(about['maximum'])}" if "maximum" in about else " or more"
        said.append(f"{_number(about['minimum'])}{most}")
    if "multipleOf" in about:
        said.append(f"multiples of {about['multipleOf']}")
    return ", ".join(said)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _default(about: Mapping[str, Any]) -> str:
    if about.get("default") is None:
        return ""
    return "empty" if about["default"] == "" else f"`{about['default']}`"


def _said(about: Mapping[str, Any]) -> str:
    return " ".join(str(about["description"]).split()).replace("|", "\\|")


def _meaning(about: Mapping[str, Any]) -> str:
    said, values = _said(about), _limits(about) if "enum" in about else ""
    return f"{said} One of {values}." if values and "`" not in said else said


def current(text: str) -> str:
    """Return the document with its tables as they should be."""
    document, cures = description(), dict(CURE.findall(text))

    def lines(kind: str, name: str) -> Iterator[str]:
        if kind == "schema":
            return fields(document, name)
        if name == "errors":
            return errors(document, cures)
        return routes(document) if name == "routes" else parameters(document)

    return filled(text, lines)


if __name__ == "__main__":
    sys.exit(keep_current(DOCUMENT, current))
