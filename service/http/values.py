"""Values of headers and of the query, as their clients write them."""

import math
import re
from typing import Final, TypeVar

from multidict import MultiMapping

from service.errors import ValidationFailed

NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
"""``float`` also reads ``1_0`` and the digits of every script."""

Default = TypeVar("Default", str, None)


def only(values: MultiMapping[str], name: str, default: Default) -> str | Default:
    """Return the value of a header or of a parameter of the query.

    Raises:
        ValidationFailed: it has two; neither of them is what the client meant.

    """
    given = set(values.getall(name, []))
    if len(given) > 1:
        raise ValidationFailed({name: ["is given more than once; send one value"]})
    return given.pop() if given else default


def number(text: str) -> float:
    """Return the number that ``text`` is; what is none is NaN, which is in no range."""
    return float(text) if NUMBER.fullmatch(text) else math.nan
