"""A large JSON object whose long texts stay where they are: parsing them would hold up others."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from service.errors import BodyTooLarge, ValidationFailed
from service.http.body import parsed_text
from service.http.uploads.sent import Sent

QUOTE: Final = b'"'
ESCAPE: Final = ord("\\")
SHORT_TEXTS: Final = 3
"""How much of MAX_BODY_BYTES all that is no long text may take: prompts, and two small images."""
TOO_LARGE: Final = (
    f"The body must not be larger than {SHORT_TEXTS} x MAX_BODY_BYTES without its images."
)


def read(data: bytes, again: Callable[[], bytes], longest: int) -> dict[str, Any]:
    """Return a JSON object whose texts of more than ``longest`` bytes are ``Sent``.

    ``again`` reads the same bytes once more.

    Raises:
        ValidationFailed: it is no JSON object.
        BodyTooLarge: without its long texts it is still too large.

    """
    name = secrets.token_hex(16)
    kept, long_texts = bytearray(), dict[str, Sent]()
    room, start = longest * SHORT_TEXTS, 0
    while (quote := data.find(QUOTE, start)) >= 0:
        end, escapes = _closing(data, quote + 1, room)
        room -= escapes
        if end - quote > longest:
            key = f"{name}{len(long_texts)}"
            long_texts[key] = Sent(read=again, start=quote + 1, end=end, base64=True)
            kept += data[start : quote + 1] + key.encode() + QUOTE
        else:
            kept += data[start : end + 1]
        start = end + 1
        if len(kept) > room:
            raise BodyTooLarge(TOO_LARGE)
    if len(kept) + len(data) - start > room:
        raise BodyTooLarge(TOO_LARGE)
    found = parsed_text(bytes(kept) + data[start:])
    return {field: _with(value, long_texts) for field, value in found.items()}


def _closing(data: bytes, start: int, room: int) -> tuple[int, int]:
    """Return where a text ends, and how many characters of it were looked at one by one."""
    end, escapes = data.find(QUOTE, start), 0
    while end >= 0:
        before = end
        while before > start and data[before - 1] == ESCAPE and escapes <= room:
            before -= 1
            escapes += 1
        if escapes > room:
            raise BodyTooLarge(TOO_LARGE)
        if (end - before) % 2 == 0:
            return end, escapes
        start = end + 1
        end = data.find(QUOTE, start)
    raise ValidationFailed({"body": ["must be JSON in UTF-8: it ends within a text"]})


def _with(value: Any, long_texts: Mapping[str, Sent]) -> Any:
    """Return a value with the long texts in it."""
    match value:
        case str():
            return long_texts.get(value, value)
        case list():
            return [_with(each, long_texts) for each in value]
        case dict():
            return {name: _with(each, long_texts) for name, each in value.items()}
    return value
