"""What safetensors files hold, read from their headers alone; imports no torch."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from service.errors import ModelError
from service.models import catalog
from service.models.catalog import Source

PREFIX: Final = 8
"""Bytes of the header's length, in front of it (safetensors format)."""

LONGEST_HEADER: Final = 100_000_000
"""The format's own limit."""

HALF: Final = 2
SINGLE: Final = 4


def header(path: Path) -> dict[str, Any]:
    """Read the table of tensors, and compare the file's length with what it promises.

    Raises:
        ModelError: the file is cut short, or is no safetensors file.
        FolderUnusable: the service's user may not read it.

    """
    catalog.demand_readable(path)
    try:
        return _table(path)
    except (OSError, ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
        raise ModelError(
            f"{path} is cut short or damaged ({error}). Fetch the model again."
        ) from error


def _table(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(PREFIX), "little")
        if not 0 < length <= min(LONGEST_HEADER, size - PREFIX):
            raise ValueError("its header does not fit into it")
        table: dict[str, Any] = json.loads(file.read(length))
    table.pop("__metadata__", None)
    data = max((row["data_offsets"][1] for row in table.values()), default=0)
    if size != PREFIX + length + data:
        raise ValueError(f"{size} bytes instead of {PREFIX + length + data}")
    return table


def files(source: Source) -> Iterator[Path]:
    """Yield the weights of a model that is here, of every part and in every number format."""
    if source.path is None:
        return
    if source.single_file:
        yield source.path
        return
    yield from sorted(source.path.glob(f"*/*{catalog.SINGLE_FILE}"))


def needed_bytes(source: Source, *, half: bool) -> int:
    """Return what the parts that make pictures take on a device, without the pictures.

    Raises:
        ModelError: a file is damaged.

    """
    width = HALF if half else SINGLE
    return sum(
        width * math.prod(row["shape"])
        for path in _chosen(source, half=half)
        for row in header(path).values()
    )


def _chosen(source: Source, *, half: bool) -> list[Path]:
    """Pick one number format of each part, as loading does."""
    found = list(files(source))
    if source.single_file:
        return found
    chosen = []
    for part in sorted(catalog.WEIGHTED):
        own = [path for path in found if path.parent.name == part]
        halves = [path for path in own if ".fp16" in path.name]
        plain = [path for path in own if path not in halves and ".non_ema" not in path.name]
        chosen += (halves or plain) if half else (plain or halves)
    return chosen
