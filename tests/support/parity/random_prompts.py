"""Prompts drawn at random, each written next to what it means in every step."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.parity.prompts import Meaning, Meant

Pieces = list[tuple[str, float] | None]
"""Texts with weights; None is a BREAK."""

Written = tuple[str, Callable[[int], Pieces]]
"""A text in the syntax, and what it means in a step, which counts from 1."""

LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
EMBEDDINGS: Final[Mapping[str, str]] = {"one": "<one>", "trio": "<trio> <trio>_1 <trio>_2"}
"""The tokens that diffusers has for a word, one for each vector."""

CHUNK: Final = 75
DEEPEST: Final = 2
NEGATIVE: Final = 0.75
"""Share of the prompts that have a negative one."""


@dataclass(frozen=True, kw_only=True)
class RandomPrompt:
    """A prompt and a negative one in the syntax, and what they mean in each step."""

    written: str
    negative: str
    steps: tuple[Meant, ...]


def random_prompt(chance: random.Random, steps: int) -> RandomPrompt:
    """Return both texts of a request for an image in so many steps."""
    parts = [_text(chance, steps) for _ in range(chance.choice((1, 1, 1, 1, 2, 3)))]
    weights = [chance.choice((1.0, 0.5, -0.3, 1.4)) if len(parts) > 1 else 1.0 for _ in parts]
    negative: Written = "", lambda _: [("", 1.0)]
    if chance.random() < NEGATIVE:
        negative = _text(chance, steps)
    written = " AND ".join(
        text if weight == 1 else f"{text}:{weight}"
        for (text, _), weight in zip(parts, weights, strict=True)
    )
    meanings = [
        Meant(
            parts=[
                (chunks(means(step)), weight)
                for (_, means), weight in zip(parts, weights, strict=True)
            ],
            negative=chunks(negative[1](step)),
        )
        for step in range(1, steps + 1)
    ]
    return RandomPrompt(written=written, negative=negative[0], steps=tuple(meanings))


def chunks(pieces: Pieces) -> Meaning:
    """Return the chunks of pieces in which every letter is a token.

    The vectors of an embedding stay in one chunk.
    """
    sections: list[list[tuple[str, float]]] = [[]]
    for piece in pieces:
        if piece is None:
            sections.append([])
        else:
            text, weight = piece
            words = (EMBEDDINGS.get(word.strip("<>") or word, word) for word in text.split())
            sections[-1] += [(word, weight) for word in words]
    if len(sections) > 1 and not sections[-1]:
        del sections[-1]
    return [chunk for section in sections for chunk in _divided(section)]


def _divided(section: Sequence[tuple[str, float]]) -> Iterator[Sequence[tuple[str, float]]]:
    chunk: list[tuple[str, float]] = []
    room = CHUNK
    for word, weight in section:
        tokens = len(word.split())
        if tokens > room:
            yield chunk
            chunk, room = [], CHUNK
        chunk.append((word, weight))
        room -= tokens
    yield chunk


def _text(chance: random.Random, steps: int, depth: int = 0) -> Written:
    parts = [_part(chance, steps, depth) for _ in range(chance.randint(1, 3))]

    def means(step: int) -> Pieces:
        return [piece for _, inner in parts for piece in inner(step)]

    return " ".join(text for text, _ in parts), means


def _part(chance: random.Random, steps: int, depth: int) -> Written:
    kinds: Sequence[Callable[[random.Random, int, int], Written]] = (_word, _break, _mark, _name)
    if depth < DEEPEST:
        kinds = (*kinds, _weighted, _weighted, _switch, _turns)
    return chance.choice(kinds)(chance, steps, depth)


def _word(chance: random.Random, steps: int, depth: int) -> Written:
    del steps, depth
    text = " ".join(chance.choices(LETTERS, k=chance.choice((1, 2, 5, 30))))
    return f" {text} ", lambda _: [(text, 1.0)]


def _break(chance: random.Random, steps: int, depth: int) -> Written:
    del chance, steps, depth
    return " BREAK ", lambda _: [None]


def _mark(chance: random.Random, steps: int, depth: int) -> Written:
    del steps, depth
    mark = chance.choice("()[]|:\\")
    return f" \\{mark} ", lambda _: [(mark, 1.0)]


def _name(chance: random.Random, steps: int, depth: int) -> Written:
    """Name an embedding, with marks around it or without them."""
    del steps, depth
    name = chance.choice(list(EMBEDDINGS))
    written = chance.choice((name, name.capitalize(), f"<{name}>"))
    return f" {written} ", lambda _: [(f"<{name}>", 1.0)]


def _weighted(chance: random.Random, steps: int, depth: int) -> Written:
    text, inner = _text(chance, steps, depth + 1)
    frame, factor = chance.choice((("({})", 1.1), ("[{}]", 1 / 1.1), ("({}:1.3)", 1.3)))

    def means(step: int) -> Pieces:
        return [piece and (piece[0], piece[1] * factor) for piece in inner(step)]

    return frame.format(text), means


def _switch(chance: random.Random, steps: int, depth: int) -> Written:
    (first, before), (second, after) = (_text(chance, steps, depth + 1) for _ in range(2))
    last = chance.randint(1, steps)
    half = chance.random() < 0.5
    when, last = ("0.5", steps // 2) if half else (str(last), last)

    def means(step: int) -> Pieces:
        return before(step) if step <= last else after(step)

    return f"[{first}:{second}:{when}]", means


def _turns(chance: random.Random, steps: int, depth: int) -> Written:
    options = [_text(chance, steps, depth + 1) for _ in range(chance.randint(2, 3))]

    def means(step: int) -> Pieces:
        return options[(step - 1) % len(options)][1](step)

    return f"[{'|'.join(text for text, _ in options)}]", means
