"""Prompts that change from step to step, as AUTOMATIC1111 writes them.

``[a:b:0.5]`` is ``a`` for half of the steps and then ``b``, ``[a:b:10]`` is ``a`` for ten steps;
``[b:10]`` begins with nothing and ``[a::10]`` ends with nothing. ``[a|b]`` takes turns. A number
below 1 is a part of the steps. They may stand in each other. All other brackets, and what a
backslash stands before, are left in the text for ``attention``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from service.core.prompt.attention import NUMBER

TOKEN: Final = re.compile(r"\\.|[()\[\]:|]|[^\\()\[\]:|]+|\\", re.DOTALL)
WHEN: Final = re.compile(rf"\s*({NUMBER})\s*", re.ASCII)
MOST_PARTS: Final = 3
"""Before, after and when."""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One text for some steps, then another."""

    before: "Template" = ()
    after: "Template" = ()
    when: float
    """The last step of ``before``; below 1 a part of all steps."""

    def chosen(self, step: int, steps: int) -> "Template":
        """Return what counts in a step from 1 to ``steps``."""
        last = self.when * steps if self.when < 1 else self.when
        return self.before if step <= last else self.after


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """Several texts in turn."""

    options: tuple["Template", ...]

    def chosen(self, step: int, steps: int) -> "Template":  # noqa: ARG002 - as the other one
        """Return what counts in a step from 1 to ``steps``."""
        return self.options[(step - 1) % len(self.options)]


Node = str | Switch | Cycle
Template = tuple[Node, ...]


class _Separator(str):
    """A colon or a bar that may divide the bracket around it."""

    __slots__ = ()


@dataclass
class _Frame:
    """An open bracket and what came after it."""

    opening: str = ""
    items: list[Node] = field(default_factory=list)


def parse(text: str) -> Template:
    """Return the template of a text; whatever is no schedule stays text."""
    frames, square = [_Frame()], 0
    for sign in TOKEN.findall(text):
        if sign in "([":
            frames.append(_Frame(sign))
            square += sign == "["
        elif sign == ")" and frames[-1].opening == "(":
            inner = frames.pop()
            frames[-1].items += ["(", *_as_text(inner.items), ")"]
        elif sign == "]" and square:
            _close_round(frames)
            inner = frames.pop()
            square -= 1
            frames[-1].items += _scheduled(inner.items)
        elif sign in ":|":
            frames[-1].items.append(_Separator(sign))
        else:
            frames[-1].items.append(sign)
    for each in frames[1:]:
        frames[0].items += [each.opening, *each.items]
    return _joined(frames[0].items)


def at(template: Template, step: int, steps: int) -> str:
    """Return the text of a step from 1 to ``steps``."""
    found: list[str] = []
    todo = list(reversed(template))
    while todo:  # Brackets may be nested deeper than Python calls itself.
        node = todo.pop()
        if isinstance(node, str):
            found.append(node)
        else:
            todo.extend(reversed(node.chosen(step, steps)))
    return "".join(found)


def _close_round(frames: list[_Frame]) -> None:
    """Turn round brackets that were left open within a square one into text."""
    square = max(number for number, each in enumerate(frames) if each.opening == "[")
    for each in frames[square + 1 :]:
        frames[square].items += [each.opening, *each.items]
    del frames[square + 1 :]


def _scheduled(items: list[Node]) -> list[Node]:
    """Return what stands for a square bracket with these items."""
    parts = _split(items, ":")
    number = WHEN.fullmatch("".join(str(each) for each in parts[-1] if isinstance(each, str)))
    plain = all(isinstance(each, str) for each in parts[-1])
    if number and plain and 1 < len(parts) <= MOST_PARTS:
        texts = [_joined(part) for part in parts[:-1]]
        before = texts[0] if len(texts) > 1 else ()
        return [Switch(before=before, after=texts[-1], when=float(number[1]))]
    options = _split(items, "|")
    if len(options) > 1:
        return [Cycle(options=tuple(_joined(option) for option in options))]
    return ["[", *_as_text(items), "]"]


def _split(items: Iterable[Node], separator: str) -> list[list[Node]]:
    parts: list[list[Node]] = [[]]
    for item in items:
        if isinstance(item, _Separator) and item == separator:
            parts.append([])
        else:
            parts[-1].append(item)
    return parts


def _as_text(items: Iterable[Node]) -> Template:
    """Return items whose separators divide nothing."""
    return _joined(str(item) if isinstance(item, _Separator) else item for item in items)


def _joined(items: Iterable[Node]) -> Template:
    """Return items with neighbouring texts put together."""
    found: list[Node] = []
    texts: list[str] = []
    for item in items:
        if isinstance(item, str):
            texts.append(item)
            continue
        if texts:
            found.append("".join(texts))
            texts.clear()
        found.append(item)
    if texts:
        found.append("".join(texts))
    return tuple(found)
