"""The settings that matter on a small card, and which of their values are tried."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

Settings = Mapping[str, str]

TILED: Final = 512
"""The tile of Stable Diffusion 1.5's VAE; up to this size tiling does nothing."""

BASE: Final[Settings] = {
    "DTYPE": "float16",
    "ATTENTION_SLICING": "false",
    "CPU_OFFLOAD": "none",
    "VAE_TILING": "false",
    "VAE_TILING_ABOVE": "0",
    "MAX_CONCURRENT_REQUESTS": "1",
}
"""Where the search begins on a GPU: nothing that trades speed for memory."""

NAMES: Final = tuple(BASE)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a machine."""

    gpu: bool
    longest: int
    """Longest side of the pictures, in pixels."""
    batch: int
    """Most pictures at a time to try."""
    vary: Sequence[str] = NAMES
    """Settings that may change."""

    @property
    def base(self) -> Settings:
        """Return where the search begins."""
        return BASE if self.gpu else {**BASE, "DTYPE": "float32"}

    def unasked(self) -> Iterator[str]:
        """Say what cannot be tried here, and why."""
        if not self.gpu:
            yield "DTYPE=float16: a CPU does not compute in it"
            yield "CPU_OFFLOAD=model, sequential: there is no GPU to offload from"
            yield "VRAM: there is none; host memory stands in its place"
        if self.longest <= TILED:
            yield f"VAE_TILING, VAE_TILING_ABOVE: no effect on pictures up to {TILED}"


def references(question: Question) -> list[Settings]:
    """Return what pictures are compared with, in the order of what is tried: the first that works.

    Offloading does not change what is computed, only where it waits.
    """
    whole = {**question.base, "DTYPE": "float32"}
    if not question.gpu:
        return [whole]
    offloaded = [{**whole, "CPU_OFFLOAD": value} for value in ("model", "sequential")]
    return [whole, *offloaded]


def leanest(question: Question) -> Settings:
    """Return where a search goes on that has found nothing that works."""
    tiled = str(TILED) if question.longest > TILED else "0"
    return {**question.base, "VAE_TILING_ABOVE": tiled}


Stage = Callable[[Settings], Sequence[Settings]]


def stages(question: Question) -> list[Stage]:
    """Return the steps of the search; each changes one thing of the best that was found so far.

    Number formats and tiles go together, since a format may only fit with tiles. All
    combinations would be hundreds of minutes on a card for which the file is meant.
    """
    formats: list[Settings] = [
        {**dtype, **tile} for tile in _tiles(question) for dtype in _dtypes(question)
    ]
    changes: dict[str, list[Settings]] = {
        "CPU_OFFLOAD": [{"CPU_OFFLOAD": value} for value in ("model", "sequential")],
        "ATTENTION_SLICING": [{"ATTENTION_SLICING": "true"}],
        "MAX_CONCURRENT_REQUESTS": [
            {"MAX_CONCURRENT_REQUESTS": str(count)} for count in range(2, question.batch + 1)
        ],
    }
    if not question.gpu:
        del changes["CPU_OFFLOAD"]
    wanted = [formats, *(changes[name] for name in changes if name in question.vary)]
    return [partial(_changed, changed) for changed in wanted]


def _changed(changes: Sequence[Settings], best: Settings) -> Sequence[Settings]:
    return [{**best, **change} for change in changes]


def _dtypes(question: Question) -> list[Settings]:
    if "DTYPE" not in question.vary:
        return [{}]
    found = ("float16", "bfloat16", "float32") if question.gpu else ("float32", "bfloat16")
    return [{"DTYPE": dtype} for dtype in found]


def _tiles(question: Question) -> list[Settings]:
    found: list[Settings] = [{}]
    if question.longest > TILED:
        kinds = {"VAE_TILING_ABOVE": str(TILED), "VAE_TILING": "true"}
        found += [{name: value} for name, value in kinds.items() if name in question.vary]
    return found


def shown(settings: Settings, base: Settings) -> str:
    """Return what differs from the base, the number format always."""
    changed = {k: v for k, v in settings.items() if k == "DTYPE" or v != base.get(k)}
    return " ".join(f"{name}={value}" for name, value in changed.items())
