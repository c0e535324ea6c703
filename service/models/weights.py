"""What safetensors files hold, read from their headers alone; imports no torch."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.errors import ModelError
from service.models import catalog
from service.models.catalog import Source

PREFIX: Final = 8
"""Bytes of the header's length, in front of it (safetensors format)."""

LONGEST_HEADER: Final = 100_000_000
"""The format's own limit."""

FILE: Final = re.compile(
    r"(?P<stem>model|diffusion_pytorch_model)(?:\.(?P<before>fp16|bf16|fp32))?"
    r"(?:-\d{5}-of-(?P<shards>\d{5}))?(?:\.(?P<after>fp16|bf16|fp32))?\.safetensors"
)
"""Names of weights; of shards the number format stands before the count, in older ones after."""

HALF_FIRST: Final = ("fp16", None, "bf16", "fp32")
HALF_LAST: Final = (None, "fp32", "fp16", "bf16")

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


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The files of one part in one number format, and the index of the sharded ones."""

    variant: str | None
    """What the libraries call the format: ``fp16``; None for the plain files."""
    names: tuple[str, ...]
    index: str | None = None


def choose(names: Iterable[str], *, half: bool) -> Chosen | None:
    """Pick the weights of a part out of the names in its folder: fetching and loading agree.

    A part is read in one number format, each part in its own: half precision first with
    ``half``, else last. A format counts where its one file is there, or all of its shards and
    their index. Returns None where no format does.
    """
    here = sorted(names)
    formats: dict[str | None, list[re.Match[str]]] = {}
    for found in filter(None, map(FILE.fullmatch, here)):
        formats.setdefault(found["before"] or found["after"], []).append(found)
    for variant in HALF_FIRST if half else HALF_LAST:
        if (chosen := _complete(variant, formats.get(variant, []), here)) is not None:
            return chosen
    return None


def _complete(
    variant: str | None, found: Sequence[re.Match[str]], names: Sequence[str]
) -> Chosen | None:
    whole = [match[0] for match in found if not match["shards"]]
    if whole:
        return Chosen(variant=variant, names=(whole[0],))
    for stem, shards in sorted({(match["stem"], match["shards"]) for match in found}):
        own = [match[0] for match in found if (match["stem"], match["shards"]) == (stem, shards)]
        index = f"{stem}.safetensors.index{f'.{variant}' if variant else ''}.json"
        if len(own) == int(shards) and index in names:
            return Chosen(variant=variant, names=tuple(own), index=index)
    return None


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
    """Return the files that loading reads."""
    if source.path is None or source.single_file:
        return list(files(source))
    return [
        path for part in sorted(catalog.WEIGHTED) for path in part_files(source.path / part, half)
    ]


def part_files(folder: Path, half: bool) -> list[Path]:
    """Return the files of a part that loading reads; none where no number format is complete."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    chosen = choose(names, half=half)
    return [folder / name for name in chosen.names] if chosen else []
