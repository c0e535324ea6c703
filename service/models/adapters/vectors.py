"""Textual inversion (arXiv:2208.01618): which tensors of a file are vectors for a word."""

from collections.abc import Mapping
from typing import Any, Final

from service.models.adapters.names import Part, parse

KEYS: Final = {
    "emb_params": Part.TEXT,
    **dict.fromkeys(("clip_l", "text_encoders_0"), Part.TEXT),
    **dict.fromkeys(("clip_g", "text_encoders_1"), Part.TEXT_2),
}
"""Names that AUTOMATIC1111 and trainers for XL give them; diffusers gives them that of the word."""

FAMILIES: Final = {768: "sd1", 1024: "sd2"}
"""By the width of the vectors of a file for one text encoder."""

DIMENSIONS: Final = (1, 2)
MOST: Final = 75
"""More vectors than a text encoder reads at once say nothing."""


def keys(rows: Mapping[str, Mapping[str, Any]]) -> dict[Part, str]:
    """Return the tensor for each text encoder; empty where a file is no textual inversion."""
    shapes = {key: tuple(row["shape"]) for key, row in rows.items()}
    if not all(len(shape) in DIMENSIONS and _fits(shape) for shape in shapes.values()):
        return {}
    if shapes.keys() <= KEYS.keys():
        found = {KEYS[key]: key for key in shapes}
        return found if Part.TEXT in found and len(found) == len(shapes) else {}
    if len(shapes) == 1:
        ((key, shape),) = shapes.items()
        word = key.startswith("<") and key.endswith(">")
        known = shape[-1] in FAMILIES and parse(key) is None
        return {Part.TEXT: key} if word or known else {}
    return {}


def _fits(shape: tuple[int, ...]) -> bool:
    return all(shape) and (len(shape) == 1 or shape[0] <= MOST)
