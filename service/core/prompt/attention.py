"""Emphasis: pieces of text with the weights that the brackets around them give.

``(x)`` weighs 1.1, ``[x]`` 1/1.1 and ``(x:1.3)`` 1.3; weights of brackets inside each other
multiply. A bracket that is not closed reaches to the end, and one that was not opened is text.
A backslash makes the character after it text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

FACTORS: Final = {"(": 1.1, "[": 1 / 1.1}
"""Of a bracket without a number."""
OPENING: Final = {")": "(", "]": "["}

LARGEST: Final = 10.0
"""Weights are not larger than this, and not smaller than its negative."""

NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)"
TOKEN: Final = re.compile(
    rf"""\\(?P<escaped>.?) | (?P<opening>[(\[]) | :\s*(?P<weight>{NUMBER})\s*\)
    | (?P<closing>[)\]]) | (?P<text>[^\\()\[\]:]+|:)""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
BREAK: Final = re.compile(r"\bBREAK\b")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Text of one weight."""

    text: str
    weight: float = 1.0


Section = tuple[Piece, ...]
"""What stands between two BREAKs; neighbours differ in weight."""


@dataclass(eq=False)
class _Bracket:
    kind: str
    factor: float
    closes: bool = False


def sections(text: str) -> tuple[Section, ...]:
    """Return the pieces of a text, in the sections that the word BREAK divides it into."""
    found: list[list[Piece]] = [[]]
    open_now = {kind: [1.0] for kind in FACTORS}
    for mark in _marks(text):
        if isinstance(mark, _Bracket):
            levels = open_now[mark.kind]
            if mark.closes:
                levels.pop()
            else:
                levels.append(levels[-1] * mark.factor)
        elif mark is None:
            found.append([])
        elif mark:
            weight = open_now["("][-1] * open_now["["][-1]
            _add(found[-1], mark, min(max(weight, -LARGEST), LARGEST))
    return tuple(tuple(section) for section in found)


def weights_beyond(text: str) -> list[str]:
    """Return the numbers in a text that are too large or too small for a weight."""
    found = (match["weight"] for match in TOKEN.finditer(text))
    return [weight for weight in found if weight and abs(float(weight)) > LARGEST]


def _marks(text: str) -> Iterator[str | _Bracket | None]:
    """Return texts, brackets with their factors, and None for each BREAK."""
    marks: list[str | _Bracket | None] = []
    stacks: dict[str, list[_Bracket]] = {kind: [] for kind in FACTORS}

    def close(kind: str, factor: float) -> None:
        opened = stacks[kind].pop()
        opened.factor = factor
        marks.append(_Bracket(kind, factor, closes=True))

    for token in TOKEN.finditer(text):
        found = token[0]
        if token["escaped"] is not None:
            marks.append(token["escaped"])
        elif token["opening"]:
            bracket = _Bracket(found, FACTORS[found])
            stacks[found].append(bracket)
            marks.append(bracket)
        elif token["weight"] and stacks["("]:
            close("(", float(token["weight"]))
        elif token["closing"] and stacks[OPENING[found]]:
            close(OPENING[found], FACTORS[OPENING[found]])
        else:
            marks += _broken(found)
    return iter(marks)


def _broken(text: str) -> list[str | None]:
    first, *rest = BREAK.split(text)
    parts: list[str | None] = [first.rstrip() if rest else first]
    for number, part in enumerate(rest, 1):
        parts += [None, part.lstrip() if number == len(rest) else part.strip()]
    return parts


def _add(section: list[Piece], text: str, weight: float) -> None:
    if section and section[-1].weight == weight:
        text = section.pop().text + text
    section.append(Piece(text=text, weight=weight))
