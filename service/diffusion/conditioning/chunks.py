"""Long texts in chunks that a text encoder can read; no part of it needs torch.

As AUTOMATIC1111 does it: a chunk is full when no token fits any more. If a comma is near its end,
the words after that comma go into the next chunk, so that none is torn apart.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from service.core.prompt.attention import Piece, Section, sections
from service.diffusion.conditioning.encoding import Reading

NEAR: Final = 20
"""Tokens that are moved for a comma at most."""

MOST_CHUNKS: Final = 10
"""What comes after them is cut."""


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A token that is not in the vocabulary: one of the vectors of a word."""

    word: str
    number: int


Token: TypeAlias = int | Vector


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Tokens without the marks around them, and the weight of each."""

    tokens: tuple[Token, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def weighted(self) -> bool:
        """Whether any token has a weight of its own."""
        return any(weight != 1 for weight in self.weights)


Tokens = Sequence[tuple[Token, float]]


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """A text as an encoder reads it, and how many of its tokens that leaves out."""

    read: tuple[Chunk, ...]
    cut: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens the text has."""
        return sum(len(each.tokens) for each in self.read) + self.cut


def chunks(
    text: str,
    reading: Reading,
    *,
    tokenize: Callable[[str], Sequence[Token]],
    size: int,
    comma: int | None,
) -> Chunks:
    """Return the chunks of a text, of up to ``size`` tokens each; at least one."""
    parts: tuple[Section, ...] = sections(text) if reading.weighted else ((Piece(text=text),),)
    weighed = [
        [(token, piece.weight) for piece in part for token in tokenize(piece.text)]
        for part in parts
    ]
    # What is cut is cut where diffusers cuts it.
    found = divided(weighed, size, comma, whole=reading.chunked)
    most = MOST_CHUNKS if reading.chunked else 1
    return Chunks(read=tuple(found[:most]), cut=sum(len(chunk.tokens) for chunk in found[most:]))


def divided(
    parts: Iterable[Tokens], size: int, comma: int | None, *, whole: bool = True
) -> list[Chunk]:
    """Return the chunks of parts that each begin with a new one.

    ``whole`` keeps the vectors of a word, and the words behind a near comma, in one chunk.
    """
    found: list[Chunk] = []
    rest: Tokens = ()
    for number, part in enumerate(parts):
        if number:
            found.append(_chunk(rest))
        rest = part
        while len(rest) > size:
            end = _end(rest, size, comma) if whole else size
            found.append(_chunk(rest[:end]))
            rest = rest[end:]
    if rest or not found:
        found.append(_chunk(rest))
    return found


def _end(tokens: Tokens, size: int, comma: int | None) -> int:
    """Return where a chunk ends that cannot take all of its tokens."""
    next_one = tokens[size][0]
    if isinstance(next_one, Vector) and 0 < next_one.number < size:
        return size - next_one.number
    if next_one != comma:
        for place in range(size - 1, max(size - NEAR, 0) - 1, -1):
            if tokens[place][0] == comma:
                return place + 1
    return size


def _chunk(tokens: Tokens) -> Chunk:
    return Chunk(
        tokens=tuple(token for token, _ in tokens), weights=tuple(weight for _, weight in tokens)
    )
