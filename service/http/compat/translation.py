"""From the fields of another API to a job: values, limits, and errors in its client's words."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from marshmallow import ValidationError

from service.core.spec import FIELDS
from service.errors import ValidationFailed
from service.http.compat.fitting import complete, fit
from service.http.compat.reading import number
from service.http.schema.orders import Order, generate_schema
from service.http.state import CONFIG, DISPATCHER, MODELS, ORDER

NUMBERS: Final = frozenset(each.name for each in FIELDS if each.kind in (int, float))
FLAGS: Final = frozenset(each.name for each in FIELDS if each.kind is bool)
TRUTHS: Final = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A request of another API as the native one has it."""

    order: Order
    warnings: tuple[str, ...] = ()
    """What was changed to make it possible, a line each."""


def translate(
    request: web.Request, values: Mapping[str, Any], *, names: Mapping[str, str]
) -> Translated:
    """Check ``values`` as the native API does, and make ``submit`` ready for the request.

    ``values`` are by native field names; what is absent or None gets the default of its model.
    ``names`` are the client's names of native fields, for errors and warnings; those of fields
    within a field have a dot, as in ``hires.scale``. With COMPAT_SIZES=fit a size that is not
    possible becomes the nearest possible one, steps above the most become the most, and a
    strength that leaves no step leaves one.

    Raises:
        ModelNotFound: there is no model of that name.
        ValidationFailed: names every wrong field as the client calls it.

    """
    given = {name: _plain(name, value) for name, value in values.items() if value is not None}
    named = given.get("model", "")
    key = request.app[MODELS].find(named if isinstance(named, str) else "")
    config, limits = request.app[CONFIG], request.app[DISPATCHER].limits(key)
    complete(given, limits)
    warnings = list(fit(given, limits, names)) if config.compat_sizes == "fit" else []
    schema = generate_schema(limits, config.request_timeout_seconds)
    with in_words_of(names):
        try:
            order = schema.load(given)
        except ValidationError as error:
            raise ValidationFailed(error.messages_dict) from error
    request[ORDER] = order
    return Translated(order=order, warnings=tuple(warnings))


@contextmanager
def in_words_of(names: Mapping[str, str]) -> Iterator[None]:
    """Rename the fields of errors as the client calls them; wrap ``submit``, too."""
    try:
        yield
    except ValidationFailed as error:
        renamed: dict[str, list[str]] = {}
        for name, words in error.errors.items():
            for each in words:
                called, fault = _called(name, each, names)
                known = renamed.setdefault(called, [])
                known += [fault] if fault not in known else []
        raise ValidationFailed(renamed) from error


def _called(name: str, fault: str, names: Mapping[str, str]) -> tuple[str, str]:
    """Return what a client calls a field, or the field within it that a fault is about."""
    inner, _, rest = fault.partition(": ")
    if rest and (called := names.get(f"{name}.{inner}")):
        return called, rest
    return names.get(name, name), fault


def _plain(name: str, value: Any) -> Any:
    """Return the number, or the true or false, that a text is."""
    if name in NUMBERS:
        return number(value)
    if name in FLAGS and isinstance(value, str):
        return TRUTHS.get(value.strip().lower(), value)
    return value
