"""What all drills write: settings of their services, percentiles, tables, documents."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scripts.written import filled, table

KIB: Final = 2**10
MIB: Final = 2**20
DOCS: Final = Path(__file__).parents[3] / "docs"
SETTINGS: Final = {
    "MIN_SIZE": "256",
    "MAX_CONNECTIONS": "128",
    "MAX_CONNECTIONS_PER_ADDRESS": "128",
    "TORCH_THREADS": "1",
    "ENGINE_STALL_SECONDS": "45",
    "SHUTDOWN_TIMEOUT_SECONDS": "2",
    "WEBHOOK_HOSTS": "127.0.0.1",
}
"""Of services in drills: small, so that little traffic reaches a limit."""


Columns = Mapping[str, Callable[[Any], object]]
"""What is said of a group under each head of a table."""


def grouped(first: str, columns: Columns, groups: Mapping[str, Any]) -> str:
    """Return a Markdown table with a line for each group."""
    rows = [(name, *(cell(own) for cell in columns.values())) for name, own in groups.items()]
    return table((first, *columns), rows)


def percentile(values: Sequence[float], part: float) -> float:
    """Return the least value that ``part`` of all do not exceed; not a number without any."""
    return sorted(values)[max(math.ceil(part * len(values)) - 1, 0)] if values else math.nan


def finite(value: Any) -> Any:
    """Return the same with None for every number that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def page(name: str) -> Path:
    """Return a document of the documentation."""
    return DOCS / f"{name}.md"


def write(name: str, figures: str) -> None:
    """Write the figures of a drill into its page of the documentation."""
    new = filled(page(name).read_text(encoding="utf-8"), lambda _kind, _name: [figures])
    page(name).write_text(new, encoding="utf-8")
