"""Files that scripts write: whether they can, tables, and documents with generated blocks."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from service.cli.output import replacing
from service.errors import ConfigError

BLOCK: Final = re.compile(
    r"(<!-- (?P<kind>\w+): (?P<name>[^\n]+) -->\n)(?P<old>.*?)(<!-- /(?P=kind) -->)", re.DOTALL
)


def demand_writable(argument: str, file: Path | None) -> None:
    """Insist that a file can be written; None is no file. Nothing is left behind.

    Raises:
        ConfigError: it cannot, with the argument, the cause and the cure.

    """
    if file is None or file.is_char_device() or file.is_fifo():
        return
    if file.is_dir():
        raise ConfigError(f"{argument} {file}: is a folder; name a file in it.")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{argument} {file}: there is no folder {file.parent}; create it.")
    try:
        if file.exists():
            with file.open("ab"):
                pass
        with replacing(file, keep=False):
            pass
    except OSError as error:
        raise ConfigError(f"{argument} {file}: cannot be written ({error.strerror}).") from error


def replaced(file: Path, text: str) -> None:
    """Write a file whole, or leave it as it was."""
    with replacing(file) as part:
        part.write(text.encode())


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table whose columns stand under each other on a terminal, too."""
    lines = [[str(cell).replace("|", "/") for cell in line] for line in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = [map(str.ljust, line, widths) for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def filled(document: str, lines: Callable[[str, str], Iterable[str]]) -> str:
    """Return a document with new lines in each block ``<!-- kind: name -->``."""

    def anew(block: re.Match[str]) -> str:
        return "\n".join((block[1].rstrip(), *lines(block["kind"], block["name"]), block[5]))

    return BLOCK.sub(anew, document)


def keep_current(file: Path, current: Callable[[str], str]) -> int:
    """Write a document anew; with ``--check`` return 1 and say so when it is not current."""
    old = file.read_text(encoding="utf-8")
    new = current(old)
    if "--check" not in sys.argv:
        file.write_text(new, encoding="utf-8")
    elif new != old:
        script = Path(sys.argv[0]).stem
        print(f"docs/{file.name} is not current: run python -m scripts.{script}")
        return 1
    return 0
