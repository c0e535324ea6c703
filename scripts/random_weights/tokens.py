"""A tokenizer of CLIP's kind with a vocabulary of our own making.

CLIP's has 49,408 entries: 256 signs for bytes, the same at the end of a word, what 48,894
merges make of them, and two marks, which are the last. The merges here are invented: all pairs
of letters, then what those make with a further one. Texts become more tokens than with
CLIP's own, of which a measurement feels nothing: the encoders always read 77.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

from transformers import CLIPTokenizer

from service.models.vocabulary import LENGTH, MARKS, SIZE, WORD_END, byte_signs


def merges() -> Iterator[tuple[str, str]]:
    """Yield pairs to merge, each part of which a sign or an earlier pair made."""
    made = list(ascii_lowercase)
    while True:
        for end in (WORD_END, ""):
            yield from ((start, letter + end) for start, letter in product(made, ascii_lowercase))
        made = [start + letter for start, letter in product(made, ascii_lowercase)]


def write(
    folder: Path,
    *,
    signs: Sequence[str] | None = None,
    size: int = SIZE,
    pad: str = MARKS[1],
) -> CLIPTokenizer:
    """Write a vocabulary of ``size`` entries into a folder, and return its tokenizer."""
    signs = byte_signs() if signs is None else signs
    tokens = [*signs, *(sign + WORD_END for sign in signs)]
    pairs = list(islice(merges(), size - len(tokens) - len(MARKS)))
    tokens += [first + second for first, second in pairs]
    tokens += MARKS
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, rules = folder / "vocab.json", folder / "merges.txt"
    numbered = {token: number for number, token in enumerate(tokens)}
    vocabulary.write_text(json.dumps(numbered, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in pairs)]
    rules.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CLIPTokenizer(str(vocabulary), str(rules), pad_token=pad, model_max_length=LENGTH)
