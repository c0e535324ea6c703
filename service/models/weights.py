"""What safetensors files hold, read from their headers alone; imports no torch."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from service.errors import ModelError
from service.models import files as on_disk
from service.models.files import LENGTH, LONGEST_HEADER

if TYPE_CHECKING:
    from service.models.source import Source

METADATA: Final = "__metadata__"
MOST_DIMENSIONS: Final = 64
BITS: Final = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Of the number formats that safetensors 0.8 knows."""

FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""Number formats that weights may have."""

INDICES: Final = ".safetensors.index"
"""What the names of the indices of shards have in them."""

WEIGHTED: Final = frozenset({"unet", "vae", "text_encoder", "text_encoder_2"})
"""Parts that cannot do without weights."""

STEMS: Final = {
    **dict.fromkeys(("unet", "vae"), "diffusion_pytorch_model"),
    **dict.fromkeys(("text_encoder", "text_encoder_2"), "model"),
}
"""How the library that reads a part names its weights: diffusers, transformers."""

FILE: Final = re.compile(
    r"(?P<stem>model|diffusion_pytorch_model)(?:\.(?P<before>fp16|bf16|fp32))?"
    r"(?:-(?P<number>\d{5})-of-(?P<shards>\d{5}))?(?:\.(?P<after>fp16|bf16|fp32))?\.safetensors",
    re.ASCII,
)
"""Names of weights; of shards the number format stands before the count, in older ones after."""

HALF_FIRST: Final = ("fp16", None, "bf16", "fp32")
HALF_LAST: Final = (None, "fp32", "fp16", "bf16")

HALF: Final = 2
SINGLE: Final = 4


def header(path: Path) -> dict[str, dict[str, Any]]:
    """Read the table of tensors, and compare the file's length with what it promises.

    Each name has its ``dtype``, ``shape`` and ``data_offsets``, all of them checked.

    Raises:
        ModelError: the file is damaged, or is something else; with the cure that fits.
        FolderUnusable: the service's user may not read it.

    """
    table, length = _read(path)
    try:
        promised = on_disk.LENGTH + length + _end(table)
    except ValueError as error:
        raise on_disk.damage(path, f"its header {error}") from error
    size = path.stat().st_size
    cure = on_disk.fetch_again(path)
    if size < promised:
        raise ModelError(
            f"{path} is cut short: {promised - size} of {promised} bytes are missing. {cure}"
        )
    if size > promised:
        raise ModelError(f"{path} has {size - promised} bytes more than its header says. {cure}")
    return table


def metadata(path: Path) -> dict[str, str]:
    """Read what a file says about itself, which its tensors do not need.

    Raises:
        ModelError, FolderUnusable: as ``header`` does.

    """
    content, _ = _content(path)
    told = content.get(METADATA)
    return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    content, length = _content(path)
    return {name: row for name, row in content.items() if name != METADATA}, length


def _content(path: Path) -> tuple[dict[str, Any], int]:
    """Return the JSON of a header, and how long it is."""
    if (odd := on_disk.look(path)) is not None:
        raise odd.error(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH), "little")
            text = file.read(min(length, LONGEST_HEADER))
    except OSError as error:
        raise on_disk.unreadable(error) from error
    if len(text) < length:
        raise ModelError(
            f"{path} is cut short: {LENGTH + length - size} bytes of its header are missing, and "
            f"all that it describes. {on_disk.fetch_again(path)}"
        )
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        cause = f"its header is not JSON: {error}"
        if isinstance(error, RecursionError):
            cause = "its header is nested too deep"
        raise on_disk.damage(path, cause) from error
    if not isinstance(content, dict):
        raise on_disk.damage(path, "its header is no table")
    return content, length


def _end(table: dict[str, dict[str, Any]]) -> int:
    """Return where the tensors end, which have to follow one another without a gap.

    Raises:
        ValueError: a row is no tensor; the text goes on after 'its header'.

    """
    spans = sorted(_span(name, row) for name, row in table.items())
    place = 0
    for begin, end, name in spans:
        if begin != place:
            raise ValueError(f"places {name!r} wrong: tensors overlap, or leave a gap")
        place = end
    return place


def _span(name: str, row: object) -> tuple[int, int, str]:
    """Return the bytes that a tensor takes, from and to."""
    if not isinstance(row, dict):
        raise ValueError(f"describes {name!r} by no table")  # noqa: TRY004 - damage, not a bug
    shape, offsets, dtype = row.get("shape"), row.get("data_offsets"), row.get("dtype")
    if not _counts(shape) or len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"gives {name!r} no possible shape")
    if not _counts(offsets) or len(offsets) != len(("begin", "end")) or offsets[0] > offsets[1]:
        raise ValueError(f"gives {name!r} no possible place")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"gives {name!r} an unknown number format")
    begin, end = offsets
    if 8 * (end - begin) != BITS[dtype] * math.prod(shape):
        raise ValueError(f"gives {name!r} a place that does not fit its shape")
    return begin, end, name


def _counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 2**63 for one in value)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The files of one part in one number format, and the index of the sharded ones."""

    variant: str | None
    """What the libraries call the format: ``fp16``; None for the plain files."""
    names: tuple[str, ...]
    index: str | None = None

    @property
    def all_names(self) -> tuple[str, ...]:
        """The files to fetch: the weights, and the index before them."""
        return (self.index, *self.names) if self.index else self.names


def choose(names: Iterable[str], *, half: bool, part: str = "") -> Chosen | None:
    """Pick the weights of a part out of the names in its folder: fetching and loading agree.

    A part is read in one number format, each part in its own: half precision first with
    ``half``, else last. A format counts where its one file is there, or all of its shards and
    their index. With the name of a ``part`` only files that its library looks for count.
    Returns None where no format does.
    """
    here = set(names)
    stem = STEMS.get(part)
    formats: dict[str | None, list[re.Match[str]]] = {}
    for found in filter(None, map(FILE.fullmatch, sorted(here))):
        if stem in {None, found["stem"]} and not (found["before"] and found["after"]):
            formats.setdefault(found["before"] or found["after"], []).append(found)
    for variant in HALF_FIRST if half else HALF_LAST:
        for own in sorted({found["stem"] for found in formats.get(variant, [])}):
            rows = [found for found in formats[variant] if found["stem"] == own]
            if (chosen := _complete(variant, own, rows, here)) is not None:
                return chosen
    return None


def _complete(
    variant: str | None, stem: str, found: Sequence[re.Match[str]], names: set[str]
) -> Chosen | None:
    whole = [match[0] for match in found if not match["shards"]]
    index = f"{stem}.safetensors.index{f'.{variant}' if variant else ''}.json"
    if whole and (stem == "model" or index not in names):
        return Chosen(variant=variant, names=(whole[0],))
    # diffusers reads the shards where there is an index, even next to a whole file; and where
    # there are several sets of shards, only the index tells which one it means.
    sets: dict[tuple[str, bool], list[re.Match[str]]] = {}
    for match in found:
        if match["shards"]:
            sets.setdefault((match["shards"], bool(match["after"])), []).append(match)
    shards = [
        match[0]
        for (count, _), own in sorted(sets.items())
        if {int(match["number"]) for match in own} == set(range(1, int(count) + 1))
        for match in own
    ]
    return (
        Chosen(variant=variant, names=tuple(shards), index=index)
        if shards and index in names
        else None
    )


def files(source: "Source") -> Iterator[Path]:
    """Yield the weights of a model that is here, of every part and in every number format."""
    if source.path is None:
        return
    if source.single_file:
        yield source.path
        return
    yield from sorted(source.path.glob(f"*/*{on_disk.SUFFIX}"))


def needed_bytes(source: "Source", *, half: bool) -> int:
    """Return what the parts that make images take on a device, without the images.

    Raises:
        ModelError: a file is damaged.

    """
    width = HALF if half else SINGLE
    return sum(
        width * math.prod(row["shape"])
        for path in read_files(source, half=half)
        for row in header(path).values()
    )


def read_files(source: "Source", *, half: bool) -> list[Path]:
    """Return the weights that loading reads.

    Raises:
        ModelError: an index of shards is damaged.

    """
    if source.path is None or source.single_file:
        return list(files(source))
    return [path for part in sorted(WEIGHTED) for path in part_files(source.path / part, half)]


def part_files(folder: Path, half: bool) -> list[Path]:
    """Return the files of a part that loading reads; none where no number format is complete.

    Raises:
        ModelError: the index of its shards is damaged, or names a file that is not there.

    """
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    chosen = choose(names, half=half, part=folder.name)
    if chosen is None:
        return []
    if chosen.index is None:
        return [folder / name for name in chosen.names]
    index = folder / chosen.index
    content = on_disk.read_json(index, bom=False)
    listed = content.get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise on_disk.damage(index, "it has no weight_map")
    if not isinstance(content.get("metadata"), dict):
        raise on_disk.damage(index, "it has no metadata")
    for name in listed.values():
        if not isinstance(name, str) or name not in names:
            raise on_disk.damage(index, f"it names {str(name)!r}, which is not there")
    return [folder / name for name in sorted(set(listed.values()))]
