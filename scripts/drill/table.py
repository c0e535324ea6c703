"""The outcome of a drill for people."""

from collections.abc import Sequence

from scripts.drill.rows import Row

HEAD = ("Fault", "Alert", "Fired", "Delivered", "To", "Inhibited", "Resolved", "")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table; times are seconds after the fault, or its end."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def line(row: Row) -> str:
    """Return one row in short, to be shown as soon as it is known."""
    return " · ".join(cell for cell in _cells(row) if cell)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.fault,
        row.expected,
        _time(row.fired),
        _time(row.delivered),
        row.receiver,
        ", ".join(row.inhibited),
        _time(row.resolved),
        _verdict(row),
    )


def _verdict(row: Row) -> str:
    if row.problem:
        return f"FAILED: {row.problem.splitlines()[0]}"
    return f"skipped: {row.skipped}" if row.skipped else "ok"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s"
