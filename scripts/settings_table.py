"""Write docs/SETTINGS.md's table of settings; ``--check`` only says whether it is current."""

import sys
from dataclasses import fields
from pathlib import Path

from scripts.written import filled, keep_current
from service.config.setting import display, environment_name
from service.config.table import Config

DOCUMENT = Path(__file__).parents[1] / "docs" / "SETTINGS.md"


def table() -> str:
    """Return the settings as a Markdown table, for the documentation."""
    lines = ["| Setting | Default | Meaning |", "|---|---|---|"]
    for row in fields(Config):
        choices = row.metadata["choices"]
        meaning = row.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
        lines.append(f"| `{environment_name(row)}` | `{display(row.default)}` | {meaning} |")
    return "\n".join(lines)


def current(text: str) -> str:
    """Return the document with the table as it is to be."""
    return filled(text, lambda _kind, _name: [table()])


if __name__ == "__main__":
    sys.exit(keep_current(DOCUMENT, current))
