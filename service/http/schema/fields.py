"""Fields of a JSON body that take a value as it is, or say what it must be."""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from marshmallow import ValidationError, fields, missing, validate

REPEATED: Final = object()
"""Stands in the parsed body for a value that was given more than once."""

BLANKS: Final = r"\s\u001c-\u001f\u0085\ufeff"
"""White space, as any of Python, ECMA 262 and Unicode sees it; in a class of a pattern."""

ANYTHING: Final = r"^[^\u0000]*$"
SOMETHING: Final = rf"^[^\u0000]*[^\u0000{BLANKS}][^\u0000]*$"
INK: Final = re.compile(f"[^{BLANKS}]")


class Once(fields.Field[Any]):
    """A field that may be given only once; JSON itself leaves open which one would count.

    ``null`` is as if the field were left out, where it can be.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allow_none = self.load_default is not missing

    def deserialize(
        self,
        value: Any,
        attr: str | None = None,
        data: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Read the value, unless it was given more than once."""
        if value is REPEATED:
            raise ValidationError("is given more than once; keep one")
        if value is None and self.allow_none:
            value = missing
        return super().deserialize(value, attr, data, **kwargs)


class WholeNumber(Once, fields.Integer):
    """An integer between two limits; ``20.0`` is one (as in JSON Schema), ``"20"`` is not.

    An example beyond a limit is shown as the limit.
    """

    def __init__(
        self, *, low: int, high: int, example: int, multiple: int = 1, **kwargs: Any
    ) -> None:
        self._multiple = multiple
        example = min(max(example, low), high)
        kind = "whole number" if multiple == 1 else f"multiple of {multiple}"
        self._cure = f"must be a {kind} between {low} and {high}, e.g. {example}"
        kwargs.setdefault("metadata", {})["examples"] = [example]
        if multiple != 1:
            kwargs["metadata"]["multipleOf"] = multiple
        super().__init__(
            strict=True,
            validate=validate.Range(low, high, error=self._cure),
            error_messages=dict.fromkeys(("invalid", "null", "too_large"), self._cure),
            **kwargs,
        )

    def _validated(self, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        number = super()._validated(value)
        if number % self._multiple:
            raise ValidationError(self._cure)
        return number


class RealNumber(Once, fields.Float):
    """A finite number between two limits; an example beyond one is shown as the limit."""

    def __init__(self, *, low: float, high: float, example: float, **kwargs: Any) -> None:
        example = min(max(example, low), high)
        cure = f"must be a number between {low:g} and {high:g}, e.g. {example:g}"
        kwargs.setdefault("metadata", {})["examples"] = [example]
        super().__init__(
            validate=validate.Range(low, high, error=cure),
            error_messages=dict.fromkeys(("invalid", "null", "too_large", "special"), cure),
            **kwargs,
        )

    def _validated(self, value: Any) -> float:
        if not isinstance(value, int | float) or (isinstance(value, float) and math.isnan(value)):
            raise self.make_error("invalid")
        return super()._validated(value) + 0.0  # -0.0 is no other number than 0.


class Text(Once, fields.String):
    """Text of bounded length that can be logged and written into a PNG.

    NUL ends a PNG text chunk early, and half of a surrogate pair has no UTF-8 form.
    """

    def __init__(self, *, high: int, example: str, blank: bool = True, **kwargs: Any) -> None:
        self._blank = blank
        self._high = high
        low = 0 if blank else 1
        cure = f'must be text of {low} to {high} characters, e.g. "{example}"'
        kwargs.setdefault("metadata", {}).update(
            minLength=low,
            maxLength=high,
            pattern=ANYTHING if blank else SOMETHING,
            examples=[example],
        )
        super().__init__(
            error_messages={
                **dict.fromkeys(("invalid", "null", "invalid_utf8", "blank"), cure),
                "required": f'is required: text of {low} to {high} characters, e.g. "{example}"',
                "long": f"must have at most {high} characters; shorten it by {{excess}}",
                "characters": (
                    "must not contain NUL or half a surrogate pair; remove the character "
                    "at position {position}"
                ),
            },
            **kwargs,
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not self._blank and not INK.search(text):
            raise self.make_error("blank")
        if len(text) > self._high:
            raise self.make_error("long", excess=len(text) - self._high)
        for position, character in enumerate(text):
            if character == "\0" or "\ud800" <= character <= "\udfff":
                raise self.make_error("characters", position=position)
        return text


class Choice(Once, fields.String):
    """One of a few names."""

    def __init__(self, *, choices: tuple[str, ...], **kwargs: Any) -> None:
        cure = f"must be one of {', '.join(choices)}"
        super().__init__(
            validate=validate.OneOf(choices, error=cure),
            error_messages=dict.fromkeys(("invalid", "null", "invalid_utf8"), cure),
            **kwargs,
        )


class Truth(Once, fields.Boolean):
    """True or false, and nothing that only looks like one of them."""

    def __init__(self, **kwargs: Any) -> None:
        cure = "must be true or false"
        super().__init__(error_messages=dict.fromkeys(("invalid", "null"), cure), **kwargs)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> bool:
        del attr, data, kwargs
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value
