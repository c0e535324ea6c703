"""What was tried, as a table and as a file of settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.cards.choice import GIB, Bounds, Choice, Trial
from scripts.cards.settings import Settings, shown
from service.cli_generate import replacing

COLUMNS: Final = (
    "settings",
    "s/picture",
    "s/step",
    "peak, GB",
    "difference",
    "PSNR, dB",
    "",
)


def cells(trial: Trial, base: Settings, bounds: Bounds) -> tuple[str, ...]:
    """Return one line of the table."""
    name = shown(trial.settings, base)
    measured, gap = trial.measured, trial.difference
    if not measured.worked:
        return (name, "-", "-", "-", "-", "-", measured.failure or "no picture")
    remarks = [bounds.refusal(trial), *measured.rungs]
    return (
        name,
        f"{trial.seconds:.2f}",
        f"{measured.step_seconds:.3f}",
        f"{trial.peak / GIB:.2f}",
        "-" if gap is None else f"{gap.mean:.2f}",
        "-" if gap is None else f"{gap.psnr:.1f}",
        "; ".join(filter(None, remarks)),
    )


def table(trials: Sequence[Trial], base: Settings, bounds: Bounds) -> str:
    """Return all trials as a Markdown table."""
    rows = [COLUMNS, *(cells(trial, base, bounds) for trial in trials)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [rows[0], tuple("-" * max(3, width) for width in widths), *rows[1:]]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def env_text(choice: Choice, about: Sequence[str], figures: str) -> str:
    """Return a file of settings that Docker Compose and a shell read alike.

    No quotes, no spaces, no variables: what both take for the same.
    """
    if choice.best is None:
        raise ValueError(choice.reason)
    comments = [
        *about,
        choice.reason[0].upper() + choice.reason[1:] + ".",
        "",
        *figures.split("\n"),
    ]
    lines = [f"# {line}".rstrip() for line in comments]
    lines += [f"{name}={value}" for name, value in choice.best.settings.items()]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Write the file whole, or not at all."""
    with replacing(path) as file:
        file.write(text.encode())
