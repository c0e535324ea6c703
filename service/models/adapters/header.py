"""The header of an adapter file: the modules that it changes, its family, its trigger words."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from service.errors import AdapterUnsuitable, FolderUnusable, ModelError
from service.models import weights
from service.models.adapters import vectors
from service.models.adapters.names import Part, Place, flat, parse

SHOWN: Final = 3
"""Names that an error shows."""

MOST_WORDS: Final = 20
"""Trigger words that are listed."""

LONGEST_WORD: Final = 200

FOREIGN: Final = (
    (("double_blocks", "single_blocks", "single_transformer_blocks"), "Flux"),
    (("joint_blocks", "joint_attn"), "Stable Diffusion 3"),
    (("transformer.", "diffusion_model.", "lora_transformer_"), "a transformer model"),
)
"""Marks in the names of other families' files."""

WIDTHS: Final = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""Families by the width of the text embeddings that their UNets take."""

VERSIONS: Final = (
    ("sdxl", "sdxl"),
    ("stable-diffusion-xl", "sdxl"),
    ("sd_v2", "sd2"),
    ("stable-diffusion-v2", "sd2"),
    ("sd_v1", "sd1"),
    ("stable-diffusion-v1", "sd1"),
)
"""Families by the beginning of what kohya or the ModelSpec write into the metadata."""


@dataclass(frozen=True)
class Found:
    """One tensor of an adapter file."""

    key: str
    shape: tuple[int, ...]


Roles = Mapping[str, Found]
"""The tensors of one module, by their role."""


@dataclass(frozen=True, kw_only=True)
class AdapterHeader:
    """What the header of an adapter file tells."""

    path: Path
    modules: Mapping[Place, Roles]
    family: str
    """``sd1``, ``sd2`` or ``sdxl``; empty where nothing tells."""
    trigger_words: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """PEFT's settings by part, as diffusers writes them into the metadata."""
    vectors: Mapping[Part, Found] = field(default_factory=dict)
    """By text encoder the vectors of a word, which make it an embedding and no adapter."""
    told_hash: str = ""
    """Hash that a trainer wrote into the metadata."""

    def alpha(self, place: Place, rank: int) -> float:
        """Return the alpha of a module that has no tensor for it."""
        alpha = self.settings.get(f"{place.part}.lora_alpha", rank)
        patterns = self.settings.get(f"{place.part}.alpha_pattern")
        for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
            if f"_{place.module}".endswith(f"_{flat(pattern.lstrip('^'))}"):
                alpha = value
        number = float(alpha) if isinstance(alpha, int | float) else float(rank)
        # Rank-stabilised LoRA (arXiv:2312.03732) divides by the root of the rank.
        stable = self.settings.get(f"{place.part}.use_rslora") is True
        return number * math.sqrt(rank) if stable else number


def read(path: Path) -> AdapterHeader:
    """Read the header of an adapter, and check that all of it is understood.

    Raises:
        AdapterUnsuitable: the file is a pickle, damaged, of another kind, or has tensors that
            are not understood; in one line.

    """
    try:
        rows = weights.header(path)
        metadata = weights.metadata(path)
    except (ModelError, FolderUnusable) as error:
        raise AdapterUnsuitable(error.detail.replace(str(path), path.name)) from error
    if inverted := vectors.keys(rows):
        return _of_a_word(path, rows, inverted)
    modules: dict[Place, dict[str, Found]] = {}
    unknown = []
    for key, row in rows.items():
        parsed = parse(key)
        if parsed is None or (row["dtype"] not in weights.FLOATS and parsed[1] != "alpha"):
            unknown.append(key)
            continue
        place, role = parsed
        modules.setdefault(place, {})[role] = Found(key, tuple(row["shape"]))
    if unknown or not modules:
        raise _not_understood(path, unknown, rows)
    for place, roles in modules.items():
        _demand_whole(path, place, roles)
    return AdapterHeader(
        path=path,
        modules=modules,
        family=_family(modules, metadata),
        trigger_words=_trigger_words(metadata),
        settings=_json(metadata, "lora_adapter_metadata"),
        told_hash=metadata.get("sshs_model_hash", ""),
    )


def _of_a_word(
    path: Path, rows: Mapping[str, Mapping[str, Any]], inverted: Mapping[Part, str]
) -> AdapterHeader:
    found = {part: Found(key, tuple(rows[key]["shape"])) for part, key in inverted.items()}
    wrong = [key for key in inverted.values() if rows[key]["dtype"] not in weights.FLOATS]
    if wrong:
        raise _not_understood(path, wrong, rows)
    width = found[Part.TEXT].shape[-1]
    family = "sdxl" if Part.TEXT_2 in found else vectors.FAMILIES.get(width, "")
    return AdapterHeader(
        path=path,
        modules={},
        family=family,
        trigger_words=(f"<{path.stem}>",),
        vectors=found,
    )


def some(names: Iterable[str]) -> str:
    """Return a few names, and how many more there are."""
    found = sorted(names)
    shown = ", ".join(found[:SHOWN])
    return shown if len(found) <= SHOWN else f"{shown} and {len(found) - SHOWN} more"


def _not_understood(
    path: Path, unknown: list[str], rows: Mapping[str, object]
) -> AdapterUnsuitable:
    for marks, family in FOREIGN:
        if any(mark in name for name in unknown for mark in marks):
            return AdapterUnsuitable(
                f"{path.name} is an adapter for {family}; use one for Stable Diffusion 1.x, 2.x "
                "or XL."
            )
    if not rows:
        return AdapterUnsuitable(f"{path.name} holds no tensors; use another copy of it.")
    return AdapterUnsuitable(
        f"{path.name} has tensors that are not understood ({some(unknown)}): it is no LoRA, or of "
        "a kind that is not supported. Use a LoRA, LoCon, LoHa, LoKr, DoRA or embedding file."
    )


def _demand_whole(path: Path, place: Place, roles: Roles) -> None:
    """Raise unless the tensors of a module make up one kind of change, and fit together."""
    own = roles.keys() - {"alpha", "dora", "magnitude"}
    if own in ({"down", "up"}, {"down", "up", "mid"}):
        fits = roles["down"].shape[:1] == roles["up"].shape[1:2]
    elif own in ({"w1_a", "w1_b", "w2_a", "w2_b"}, {"w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"}):
        fits = True  # Its product is compared with the module's shape.
    elif own == {"diff"}:
        fits = not {"dora", "magnitude"} & roles.keys()
    else:
        first = own & {"k_w1", "k_w1_a", "k_w1_b"}
        second = own - first
        fits = first in ({"k_w1"}, {"k_w1_a", "k_w1_b"}) and second in (
            {"k_w2"},
            {"k_w2_a", "k_w2_b"},
            {"k_w2_a", "k_w2_b", "k_t2"},
        )
    if not fits:
        names = some(each.key for each in roles.values())
        raise AdapterUnsuitable(
            f"{path.name} is damaged: the tensors of {place.module} do not make up a change "
            f"({names}). Use another copy of it."
        )


def _family(modules: Mapping[Place, Roles], metadata: Mapping[str, str]) -> str:
    if any(place.part is Part.TEXT_2 for place in modules):
        return "sdxl"
    for place, roles in modules.items():
        if place.part is Part.UNET and place.module.endswith("attn2_to_k") and "down" in roles:
            shape = roles["down"].shape
            if len(shape) > 1 and shape[1] in WIDTHS:
                return WIDTHS[shape[1]]
    for name in ("ss_base_model_version", "modelspec.architecture"):
        told = metadata.get(name, "").lower()
        for mark, family in VERSIONS:
            if told.startswith(mark):
                return family
    return ""


def _trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words that a file names for a prompt, the commonest of its training first."""
    told = metadata.get("modelspec.trigger_phrase", "")
    words = [told] if told else []
    counts: dict[str, int] = {}
    for tags in _json(metadata, "ss_tag_frequency").values():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int):
                counts[tag.strip()] = counts.get(tag.strip(), 0) + count
    words += sorted(counts, key=lambda tag: (-counts[tag], tag))
    kept = dict.fromkeys(word[:LONGEST_WORD] for word in words if word)
    return tuple(kept)[:MOST_WORDS]


def _json(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return the JSON object in an entry of the metadata; what is none tells nothing."""
    try:
        found = json.loads(metadata.get(name, "{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
