"""A whole prompt: its sub-prompts, how they change, and the adapters that it names."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from service.core.prompt import schedule
from service.core.prompt.attention import LARGEST, NUMBER, weights_beyond
from service.core.prompt.schedule import Template
from service.core.spec import MOST_ADAPTERS, Adapter

MOST_SUBPROMPTS: Final = 8
"""Sub-prompts of an image: each takes a row in the UNet's batch."""

MOST_TEXTS: Final = 32
"""Different texts that a prompt may have in the course of the steps: each is encoded at the start,
while all other images wait."""

CACHED: Final = 128
"""Parsed prompts that are kept: the queue asks for each of them many times."""

AND: Final = re.compile(r"\bAND\b")
WEIGHT: Final = re.compile(NUMBER, re.ASCII)
TAG: Final = re.compile(r"<(lora|lyco|hypernet):([^>]*)>")
WEIGHTS_OF_TAG: Final = {"te": "text_weight", "unet": "weight"}


@dataclass(frozen=True, kw_only=True)
class SubPrompt:
    """What one row of the denoiser's batch is guided by."""

    template: Template
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt, as one of the syntaxes reads it."""

    subprompts: tuple[SubPrompt, ...]
    adapters: tuple[Adapter, ...] = ()
    """Those that it names: ``<lora:name:weight>`` or ``<lora:name:text encoders:denoiser>``."""
    faults: tuple[str, ...] = ()
    """What is wrong with it, in words for its author."""

    @property
    def weights(self) -> tuple[float, ...]:
        """How much each sub-prompt counts."""
        return tuple(each.weight for each in self.subprompts)

    def adapters_next_to(self, given: Iterable[Adapter]) -> list[Adapter]:
        """Return the adapters of a request: those ``given``, and those that it names."""
        names = {each.name for each in given}
        return [*given, *(each for each in self.adapters if each.name not in names)]

    def by_step(self, steps: int, *, after: int = 0) -> list[tuple[str, ...]]:
        """Return the text of each sub-prompt in each step.

        The steps of a second pass follow those of the first, of which there are ``after``:
        parts of the steps are of these, and whole numbers count on.
        """
        templates = [each.template for each in self.subprompts]
        if all(isinstance(node, str) for template in templates for node in template):
            return [tuple("".join(map(str, each)) for each in templates)] * steps
        return [
            tuple(schedule.at(each, after + step, after or steps) for each in templates)
            for step in range(1, steps + 1)
        ]

    def faults_next_to(self, given: Iterable[Adapter]) -> list[str]:
        """Return what is wrong with the adapters that it names next to those ``given``."""
        known = {each.name: each for each in given}
        found = []
        for each in self.adapters:
            if known.setdefault(each.name, each) != each:
                found.append(
                    f"must give the adapter {each.name} one weight, in all tags and in adapters"
                )
            if max(abs(each.weight), abs(each.text_weight)) > LARGEST:
                found.append(f"must have weights between {-LARGEST:g} and {LARGEST:g} in tags")
        if len(known) > MOST_ADAPTERS:
            found.append(f"must not name more than {MOST_ADAPTERS} adapters")
        return found

    def texts(self, steps: int, more: int = 0) -> set[str]:
        """Return its texts in so many steps, and ``more`` of a second pass."""
        found = (*self.by_step(steps), *self.by_step(more, after=steps))
        return {text for each in found for text in each}

    def faults_in(self, steps: int, more: int = 0) -> list[str]:
        """Return what is wrong with it in so many steps, and ``more`` of a second pass."""
        texts = self.texts(steps, more)
        many = f"must change between at most {MOST_TEXTS} texts, not {len(texts)}"
        return [*self.faults, *([many] if len(texts) > MOST_TEXTS else [])]


def literal(text: str) -> Prompt:
    """Return the prompt of a text in which no character means anything else."""
    return Prompt(subprompts=(SubPrompt(template=(text,)),))


@lru_cache(maxsize=CACHED)
def parse(text: str, *, negative: bool = False) -> Prompt:
    """Return the prompt that a text in AUTOMATIC1111's syntax means.

    A negative prompt has no sub-prompts: there AND is a word.
    """
    adapters: list[Adapter] = []
    faults: list[str] = []
    for kind, words in TAG.findall(text):
        tag = _tag(words)
        if negative:
            faults.append(f"must not name adapters: move <{kind}:{words}> to the prompt")
        elif kind == "hypernet":
            faults.append(f"must not name hypernetworks, which are not read: <{kind}:{words}>")
        elif tag is None:
            faults.append(f"<{kind}:{words}> must be <lora:name:weight> or <lora:name:text:image>")
        else:
            adapters.append(tag)
    bare = TAG.sub("", text)
    parts = [bare] if negative else AND.split(bare)
    # A number at the end of a prompt without AND is text: "at 16:9" is no weight.
    subprompts = tuple(map(_weighted, parts)) if len(parts) > 1 else (_unweighted(bare),)
    faults += _excesses(bare, subprompts)
    return Prompt(
        subprompts=subprompts, adapters=tuple(dict.fromkeys(adapters)), faults=tuple(faults)
    )


def _excesses(text: str, subprompts: tuple[SubPrompt, ...]) -> Iterator[str]:
    if len(subprompts) > MOST_SUBPROMPTS:
        yield f"must have at most {MOST_SUBPROMPTS} parts with AND between them"
    beyond = [f"{each.weight:g}" for each in subprompts if abs(each.weight) > LARGEST]
    for weight in (*beyond, *weights_beyond(text)):
        yield (
            f"must have weights between {-LARGEST:g} and {LARGEST:g}, not {weight}; write \\: "
            "for a colon before a number"
        )


def _unweighted(text: str) -> SubPrompt:
    return SubPrompt(template=schedule.parse(text))


def _weighted(text: str) -> SubPrompt:
    words, colon, number = text.rpartition(":")
    if not colon or words.endswith("\\") or not WEIGHT.fullmatch(number.strip()):
        return _unweighted(text)
    return SubPrompt(template=schedule.parse(words), weight=float(number))


def _tag(words: str) -> Adapter | None:
    """Return what the words of a tag name; None where they do not make sense."""
    name, *rest = words.split(":")
    weights: dict[str, float] = {}
    for place, word in enumerate(rest):
        key, equals, number = word.rpartition("=")
        field = WEIGHTS_OF_TAG.get(key) if equals else ["text_weight", "weight", ""][min(place, 2)]
        if not field or not WEIGHT.fullmatch(number.strip()):
            return None
        weights[field] = float(number)
    text_weight = weights.get("text_weight", 1.0)
    weight = weights.get("weight", text_weight)
    return Adapter(name=name, weight=weight, text_weight=text_weight) if name else None
