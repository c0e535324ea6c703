"""Write the tables of docs/COMMANDS.md; ``--check`` only says whether they are current."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Final

from scripts.written import filled, keep_current
from service.__main__ import parser
from service.config.table import Config

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "COMMANDS.md"
SETTINGS: Final = {row.name for row in fields(Config)}


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command."""
    (found,) = (
        action.choices
        for action in parser()._actions  # noqa: SLF001 - argparse has no public list of them
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001 - as above
    )
    return dict(found)


def options(name: str) -> list[argparse.Action]:
    """Return what a command takes besides settings and ``--help``."""
    return [
        action
        for action in commands()[name]._actions  # noqa: SLF001 - see commands
        if action.dest not in SETTINGS | {"help"}
    ]


def lines(_kind: str, name: str) -> Iterable[str]:
    """Return what a command does and what it takes, as Markdown."""
    yield str(commands()[name].description)
    rows = [f"| {_words(action)} | {_meaning(action)} |" for action in options(name)]
    if rows:
        yield from ("", "| Argument | Meaning |", "|---|---|", *rows)


def _words(action: argparse.Action) -> str:
    value = action.metavar or action.dest.upper()
    if not action.option_strings:
        return f"`{value if action.nargs is None else f'[{value}]'}`"
    after = "" if action.nargs == 0 else f" {value}"
    return ", ".join(f"`{option}{after}`" for option in action.option_strings)


def _meaning(action: argparse.Action) -> str:
    return str(action.help).replace("|", "\\|").replace("%%", "%")


def current(text: str) -> str:
    """Return the document with the tables as they are to be."""
    return filled(text, lines)


if __name__ == "__main__":
    sys.exit(keep_current(DOCUMENT, current))
