"""One row of the table of settings: how it is declared, named, read and checked."""

import math
from collections.abc import Mapping
from dataclasses import Field, field
from types import NoneType
from typing import Any, get_args

from service.config.addresses import Listed
from service.config.cleaning import cleaned, expanded
from service.config.credentials import Keys

AUTO = "auto"
"""How None is written, in a setting that leaves the choice to others."""

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


def setting(
    default: Any,
    help_text: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    multiple: int = 1,
    choices: tuple[str, ...] = (),
    empty: bool = False,
    secret: bool = False,
    path: bool = False,
) -> Any:
    """Declare one row of the table: a default, what it means, and what it may be.

    A default of None is written ``auto``: other values decide, as the help text says.
    A secret has no flag, because everybody on the machine can read a command line, and no
    error repeats it.
    """
    limits = {"minimum": minimum, "maximum": maximum, "multiple": multiple, "choices": choices}
    more = {"empty": empty, "secret": secret, "path": path}
    # A secret that is kept as it is shows in no text of the settings.
    visible = not (secret and isinstance(default, str))
    return field(default=default, repr=visible, metadata={"help": help_text, **more, **limits})


def environment_name(row: Field[Any]) -> str:
    """Return the environment variable of a row, for example ``API_PORT``."""
    return row.name.upper()


def flag_name(row: Field[Any]) -> str:
    """Return the command line flag of a row, for example ``--api-port``."""
    return "--" + row.name.replace("_", "-")


def tidy(row: Field[Any], text: str, kind: type) -> str:
    """Return the text of a setting as it is meant, without what surrounds it.

    Raises:
        ValueError: it has characters that are no part of any value.

    """
    path = row.metadata["path"]
    listed = issubclass(kind, (Listed, Keys))
    text = cleaned(text, secret=row.metadata["secret"], path=path, listed=listed)
    return expanded(text) if path else text


def kind_of(kind: Any) -> Any:
    """Return the type of a setting's value, without the None that stands for ``auto``."""
    return next((each for each in get_args(kind) if each is not NoneType), kind)


def check(row: Field[Any], value: Any) -> list[str]:
    """Return what is wrong with a value of a row, named: one line or none."""
    if value is None and row.default is None:
        return []
    problem = _problem(row.metadata, value)
    return [f"{describe(row, value)}: {problem}"] if problem else []


def describe(row: Field[Any], value: Any) -> str:
    """Return a setting as an error names it; a secret without its value."""
    name = environment_name(row)
    return name if row.metadata["secret"] else f"{name}={value}"


def _problem(limits: Mapping[str, Any], value: Any) -> str:
    low, high, multiple = limits["minimum"], limits["maximum"], limits["multiple"]
    if limits["choices"] and value not in limits["choices"]:
        return f"must be one of {', '.join(limits['choices'])}"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if low is not None and value < low:
        return f"must be {low} or more"
    if high is not None and value > high:
        return f"must be {high} or less"
    if multiple != 1 and value % multiple:
        return f"must be a multiple of {multiple}"
    return ""


def parse(text: str, kind: type, choices: tuple[str, ...] = ()) -> Any:
    """Read a setting's text as its type; a choice may be written in either case.

    Raises:
        ValueError: the text is no such value.

    """
    if kind is bool:
        if text.lower() in TRUE | FALSE:
            return text.lower() in TRUE
        raise ValueError("must be true or false")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise ValueError(
                "must be a number" if kind is float else "must be a whole number"
            ) from error
    return next((choice for choice in choices if choice.lower() == text.lower()), kind(text))


def display(default: Any) -> str:
    """Return a default as it would be set, for help and documentation."""
    if default is None:
        return AUTO
    if isinstance(default, bool):
        return str(default).lower()
    return str(default)
