"""What a row must be to be believed: an editor, a tool or a failing disk may have written it."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final, NoReturn, get_type_hints

from yarl import URL

from service.config.table import Config
from service.core.fields import RequestField, Setting
from service.core.limits import MOST_CLIP_LAYERS
from service.core.spec import FIELDS

ID: Final = re.compile(r"[0-9a-f]{32}")
LATEST: Final = 1e11
"""Seconds since 1970: the year 5138. Beyond it a number is no time."""

MOST: Final = 10**9

Check = Callable[[Any], bool]


class DamagedRow(Exception):
    """A row that this service cannot have written, and what is wrong with it."""


def text(value: Any) -> bool:
    """Tell whether it is text; what SQLite could not decode has lone surrogates."""
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def name(value: Any) -> bool:
    """Tell whether it is text that is not empty."""
    return text(value) and bool(value)


def whole(value: Any, low: int = 0, high: int = MOST) -> bool:
    """Tell whether it is a whole number in these bounds."""
    return type(value) is int and low <= value <= high


def number(value: Any) -> bool:
    """Tell whether it is a number that is one."""
    return type(value) in (int, float) and math.isfinite(value)


def moment(value: Any) -> bool:
    """Tell whether it is a time in seconds since 1970."""
    return number(value) and abs(value) <= LATEST


def address(value: Any) -> bool:
    """Tell whether it is an address that something can be sent to."""
    try:
        return name(value) and bool(URL(value).host) and URL(value).scheme in {"http", "https"}
    except ValueError:
        return False


def maybe(check: Check) -> Check:
    """Allow None, too."""
    return lambda value: value is None or check(value)


def one_of(kind: Any) -> Check:
    """Tell whether it is the value of a member of an enumeration."""
    values = {member.value for member in kind}
    return lambda value: isinstance(value, str) and value in values


def adapters(value: Any) -> bool:
    """Tell whether it is a list of adapters: a name and two weights each."""
    return isinstance(value, list | tuple) and all(
        isinstance(each, dict)
        and each.keys() == {"name", "weight", "text_weight"}
        and name(each["name"])
        and number(each["weight"])
        and number(each["text_weight"])
        for each in value
    )


def _object_of(kind: type) -> Check:
    """Return what a JSON object of a request can have been; what it leaves out has defaults."""
    checks = {name: OF_TYPES[hint] for name, hint in get_type_hints(kind).items()}
    needed = {each.name for each in fields(kind) if each.default is MISSING}

    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and needed <= value.keys() <= checks.keys()
            and all(checks[name](each) for name, each in value.items())
        )

    return maybe(check)


def _accepted(asked: RequestField) -> Check:
    """Return what a field of a request can have been, whatever the settings were."""
    if asked.entries is not None:
        return adapters
    if asked.is_object:
        return _object_of(asked.kind)
    if asked.kind is bool:
        return OF_TYPES[bool]
    if asked.kind is str:
        return name if asked.choices else text
    if asked.kind is float:
        return number
    low, high = (
        BOUNDS[limit.name][bound] if isinstance(limit, Setting) else limit
        for limit, bound in ((asked.low, "minimum"), (asked.high, "maximum"))
    )
    return lambda value: whole(value, low, high)


OF_TYPES: Final[Mapping[Any, Check]] = {
    str: text,
    int: whole,
    float: number,
    bool: lambda value: isinstance(value, bool),
}
"""What a value of a type can have been."""
OF_MODELS: Final[Mapping[str, Mapping[str, Any]]] = {
    "max_clip_skip": {"minimum": 1, "maximum": MOST_CLIP_LAYERS}
}
"""Limits that no setting gives."""
BOUNDS: Final = {**{row.name: row.metadata for row in fields(Config)}, **OF_MODELS}
REQUEST: Final = {each.name: _accepted(each) for each in FIELDS}


def demand(row: Mapping[str, Any], checks: Mapping[str, Check], column: str = "") -> None:
    """Pass what can be true; ``column`` names the one that ``row`` comes from.

    Raises:
        DamagedRow: with the values that cannot.

    """
    wrong = [name for name, check in checks.items() if not check(row[name])]
    if wrong:
        prefix = f"{column}: " if column else ""
        raise DamagedRow(f"{prefix}{', '.join(wrong)} cannot be what was written")


def mapping(value: Any, column: str) -> dict[str, Any]:
    """Return the JSON object that a column holds.

    Raises:
        DamagedRow: it holds none.

    """
    try:
        found = json.loads(value, parse_constant=_no_number) if isinstance(value, str) else None
    except (ValueError, RecursionError) as error:
        raise DamagedRow(f"{column} is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise DamagedRow(f"{column} is no JSON object")
    return found


def _no_number(found: str) -> NoReturn:
    raise ValueError(f"{found} is no number")
