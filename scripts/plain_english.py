"""Find hard-to-read phrases in the texts that users meet first; exit 1 when there are some.

Reads the README, the help of settings, commands and metrics, error titles and details, what
commands print, the OpenAPI description, and the titles of dashboards and alerts.
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import yaml

from service import __main__, errors
from service.app import create_app
from service.config.table import Config
from service.http.schema import openapi
from service.telemetry.metrics import Metrics
from tests.support.simulation.fake_engine import FakeEngine

ROOT: Final = Path(__file__).parents[1]

PHRASES: Final = {
    r"\bshall\b": "say must, will or is",
    r"(?<!there )\b(?:is|are) none\b": "say that there is no …, or that it is empty",
    r"\bof (?:one's|your|our) own\b": "name the thing",
    r"\b(?:is|are) told(?: of)?\b": "say who tells what to whom",
    r"\bbesides?\b": "say next to, while, compared with or also",
    r"\bbut for\b": "say except",
    r"\bfor want of\b": "say because there is no",
    r"\bdoors?\b": "name the API, the gateway or the check",
    r"\bpictures?\b": "say image",
    r"\bcures?\b": "say fix",
    r"\bwants\b": "say needs or expects",
    r"\bbetween commas\b": "say comma-separated",
    r"\bto be called by\b": "say accepted",
    r"\bwhoever\b": "name the person or the program",
    r"^Of (?:these|those|them)\b": "name what is counted",
    r"\bat once after a pause\b": "say burst",
}
"""What design readers stumble over, as patterns, and what to say instead."""

TITLES: Final = {r"^(?:What|Who|Where|How|Whether)\b[^?]*$": "use a noun phrase"}
"""The same for headings and titles alone."""

PRINTING: Final = {"ValidationError", "ValueError", "print_error", "show"}
"""Calls whose texts users read, next to those that make an error of the service."""

Text = tuple[str, str, bool]
"""Where a text stands, the text, and whether it is a title."""


def readme() -> Iterator[Text]:
    """Yield the lines of the README, code left out."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines():
        yield "README.md", line.lstrip("#-*| "), line.startswith("#")


def settings() -> Iterator[Text]:
    """Yield the help of every setting."""
    for row in fields(Config):
        yield f"setting {row.name}", row.metadata["help"], False


def commands() -> Iterator[Text]:
    """Yield what the command line prints as help, settings left out."""
    pending = [__main__.parser()]
    while pending:
        parser = pending.pop()
        yield parser.prog, f"{parser.description or ''} {parser.epilog or ''}", False
        for action in parser._actions:  # noqa: SLF001 - argparse has no public name for them
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                pending += action.choices.values()
            elif action.dest not in Config.__dataclass_fields__:
                yield f"{parser.prog} {action.dest}", action.help or "", False


def titles_of_errors() -> Iterator[Text]:
    """Yield the title of every error."""
    for kind in errors.KINDS.values():
        yield f"error {kind.code}", kind.__doc__ or "", True


def metrics() -> Iterator[Text]:
    """Yield the help of every metric."""
    for definition in Metrics().definitions:
        yield f"metric {definition.name}", definition.help, True


def details_of_errors() -> Iterator[Text]:
    """Yield every text that is given to an error where it is made, or that a command prints."""
    names = {name for name in vars(errors) if name[0].isupper()} | PRINTING
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if getattr(called, "id", getattr(called, "attr", "")) in names:
                for part in ast.walk(node):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield f"{path.relative_to(ROOT)}:{part.lineno}", part.value, False


def published() -> Iterator[Text]:
    """Yield every text of the API's description, of dashboards, of panels and of alerts."""
    app = create_app(Config(data_dir=""), FakeEngine())
    yield from _texts("openapi", json.loads(openapi.current(app)), titles={"title"})
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        yield from _texts(path.name, dashboard, titles={"title"})
    rules = yaml.safe_load((ROOT / "alerts" / "rules.yml").read_text(encoding="utf-8"))
    yield from _texts("alert", rules, titles={"summary"})


def _texts(where: str, node: Any, titles: set[str]) -> Iterator[Text]:
    """Yield what stands under the names of texts, however deep."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    for key, value in node.items() if isinstance(node, dict) else ():
        if key in {"title", "summary", "description"} and isinstance(value, str):
            yield f"{where} {key}", value, key in titles
        yield from _texts(where, value, titles)


SOURCES: Final = (
    *(readme, settings, commands, metrics, titles_of_errors, details_of_errors, published),
)


def found() -> Iterator[str]:
    """Yield a line for every phrase that is found, with what to say instead."""
    for where, text, title in (each for source in SOURCES for each in source()):
        for pattern, instead in {**PHRASES, **(TITLES if title else {})}.items():
            if match := re.search(pattern, text, re.IGNORECASE):
                yield f"{where}: “{match[0]}”: {instead}: {text}"


def main() -> int:
    """Print what is found; return 1 when there is something."""
    lines = sorted(set(found()))
    for line in lines:
        print(line)
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
