"""Write the tables of docs/SETTINGS.md and docs/COMMANDS.md; ``--check`` only compares them."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Final

from scripts.written import filled, keep_current
from service.__main__ import parser
from service.config.setting import display, environment_name
from service.config.table import Config

DOCS: Final = Path(__file__).parents[1] / "docs"
SETTINGS: Final = {row.name for row in fields(Config)}


def table() -> str:
    """Return the settings as a Markdown table, for the documentation."""
    lines = ["| Setting | Default | Meaning |", "|---|---|---|"]
    for row in fields(Config):
        choices = row.metadata["choices"]
        meaning = row.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
        lines.append(f"| `{environment_name(row)}` | `{display(row.default)}` | {meaning} |")
    return "\n".join(lines)


def command(name: str) -> Iterable[str]:
    """Return what a command does and what it takes besides settings, as Markdown."""
    described = commands()[name]
    yield str(described.description)
    actions = [each for each in described._actions if each.dest not in SETTINGS | {"help"}]  # noqa: SLF001 - argparse has no public list of them
    if actions:
        rows = [f"| {_words(each)} | {_meaning(each)} |" for each in actions]
        yield from ("", "| Argument | Meaning |", "|---|---|", *rows)


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command."""
    (found,) = (
        action.choices
        for action in parser()._actions  # noqa: SLF001 - see command
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001 - see command
    )
    return dict(found)


def _words(action: argparse.Action) -> str:
    value = action.metavar or action.dest.upper()
    if not action.option_strings:
        return f"`{value if action.nargs is None else f'[{value}]'}`"
    after = "" if action.nargs == 0 else f" {value}"
    return ", ".join(f"`{option}{after}`" for option in action.option_strings)


def _meaning(action: argparse.Action) -> str:
    return str(action.help).replace("|", "\\|").replace("%%", "%")


def current(text: str) -> str:
    """Return a document with the tables as they are to be."""
    return filled(text, lambda kind, name: command(name) if kind == "command" else [table()])


if __name__ == "__main__":
    documents = [DOCS / "SETTINGS.md", DOCS / "COMMANDS.md"]
    sys.exit(max([keep_current(document, current) for document in documents]))
