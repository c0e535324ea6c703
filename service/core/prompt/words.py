"""Names of embeddings in a text: each stands for vectors that were trained for it.

``<name>`` names one in every syntax. In AUTOMATIC1111's the name alone does, where it is a whole
word. Capitals do not matter.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from service.core.prompt import language
from service.core.prompt.syntax import PromptSyntax
from service.core.spec import GenerationSpec

CACHED: Final = 64


def texts(request: GenerationSpec) -> set[str]:
    """Return all texts that guide the images of a request."""
    return set[str]().union(*texts_by_field(request).values())


def texts_by_field(request: GenerationSpec) -> dict[str, set[str]]:
    """Return the texts that guide the images of a request, by the field that they stand in."""
    written = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    if request.prompt_syntax == PromptSyntax.PLAIN:
        return {field: {text} for field, text in written.items()}
    found: dict[str, set[str]] = {}
    for field, text in written.items():
        parsed = language.parse(text, negative=field != "prompt")
        more = request.second.steps if request.second is not None else 0
        found[field] = parsed.texts(request.steps, more)
    return found


def may_name_any(found: Iterable[str], *, bare: bool) -> bool:
    """Tell whether texts may name an embedding, before it is known which there are."""
    return bare or any("<" in text for text in found)


def named_in(text: str, names: Iterable[str], *, bare: bool) -> list[str]:
    """Return those of the names that a text has, each once, the first first."""
    parts = divided(text, names, bare=bare)
    return list(dict.fromkeys(name for _, name in parts if name))


def divided(text: str, names: Iterable[str], *, bare: bool) -> list[tuple[str, str]]:
    """Return the parts of a text in order: text and "", or "" and a name."""
    lower = text.lower()
    # Most names are in no text; a pattern of a thousand takes milliseconds.
    near = {name.lower(): name for name in names if name.lower() in lower}
    if not near:
        return [(text, "")]
    found: list[tuple[str, str]] = []
    end = 0
    for match in _pattern(tuple(near), bare=bare).finditer(text):
        found += [(text[end : match.start()], ""), ("", near[match[0].strip("<>").lower()])]
        end = match.end()
    return [each for each in (*found, (text[end:], "")) if any(each)] or [("", "")]


@lru_cache(maxsize=CACHED)
def _pattern(names: tuple[str, ...], *, bare: bool) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    any_of = "|".join(map(re.escape, longest_first))
    alone = rf"|(?<!\w)(?:{any_of})(?!\w)" if bare else ""
    return re.compile(f"<(?:{any_of})>{alone}", re.IGNORECASE)
