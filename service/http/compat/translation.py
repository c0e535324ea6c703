"""From the fields of another API to a job: values, limits, and errors in its client's words."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from aiohttp import web
from marshmallow import ValidationError

from service.core.limits import RequestLimits, fitted
from service.core.spec import FIELDS
from service.errors import ValidationFailed
from service.http.compat.reading import number
from service.http.schema.orders import Order, generate_schema
from service.http.state import CONFIG, DISPATCHER, MODELS, ORDER

NUMBERS: Final = frozenset(each.name for each in FIELDS if each.kind in (int, float))

LARGEST: Final = 10**9
"""Larger numbers are refused, as what no image could be like."""


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
    ``names`` are the client's names of native fields, for errors and warnings. With
    COMPAT_SIZES=fit a size that is not possible becomes the nearest possible one, and steps
    above the most become the most.

    Raises:
        ModelNotFound: there is no model of that name.
        ValidationFailed: names every wrong field as the client calls it.

    """
    given = {
        name: number(value) if name in NUMBERS else value
        for name, value in values.items()
        if value is not None
    }
    named = given.get("model", "")
    key = request.app[MODELS].find(named if isinstance(named, str) else "")
    config, limits = request.app[CONFIG], request.app[DISPATCHER].limits(key)
    warnings: list[str] = []
    if config.compat_sizes == "fit":
        warnings = [*_fit_size(given, limits, names), *_fit_steps(given, limits, names)]
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
            known = renamed.setdefault(names.get(name, name), [])
            known += [each for each in words if each not in known]
        raise ValidationFailed(renamed) from error


def _fit_size(
    given: dict[str, Any], limits: RequestLimits, names: Mapping[str, str]
) -> Iterator[str]:
    """Replace a size that is not possible; what is no size is left to be refused."""
    if not {"width", "height"} & given.keys():
        return
    width, height = (given.get(side, limits.default_size) for side in ("width", "height"))
    if not (_whole(width) and _whole(height)):
        return
    width, height = int(width), int(height)
    given["width"], given["height"] = found = fitted(
        width, height, limits.min_size, limits.max_size
    )
    if found != (width, height):
        called = " and ".join(dict.fromkeys(names.get(side, side) for side in ("width", "height")))
        yield (
            f"{called}: {width}x{height} is not possible with this model; the nearest possible "
            f"size is {found[0]}x{found[1]}."
        )


def _fit_steps(
    given: dict[str, Any], limits: RequestLimits, names: Mapping[str, str]
) -> Iterator[str]:
    steps, most = given.get("steps"), limits.max_steps
    if _whole(steps) and steps > most:
        given["steps"] = most
        yield f"{names.get('steps', 'steps')}: {int(steps)} is above the most; it is {most}."


def _whole(value: Any) -> TypeGuard[float]:
    """Return whether a value is a whole number above 0 that somebody may mean."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < LARGEST and (isinstance(value, int) or value.is_integer())
