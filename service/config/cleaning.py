"""Text that people wrote into settings and files of keys: what is around a value, and unseen in it.

docker's ``--env-file``, systemd and shells treat quotes in different ways, editors of other
systems end lines with CR, and web pages have characters in them that nobody sees. What can be
meant in one way only is corrected, the rest is refused by the name of the character.
"""

import os
import unicodedata
from typing import Final

BLANKS: Final = " \t\r\n\v\f"
QUOTES: Final = frozenset(
    "\"'`"
    "\u00b4\u201c\u201d\u201e\u201f\u2018\u2019\u201a"
    "\u201b\u00ab\u00bb\u2039\u203a\u2033\u2032\u300c"
    "\u300d\u300e\u300f\uff02\uff07"
)
"""Of keyboards, and those that word processors, and other languages, put in their place."""

JOINERS: Final = frozenset("\u200c\u200d")
"""Some scripts are written with them, inside of words."""

UNSEEN: Final = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})
"""Kinds of characters that show nothing: controls, formats, separators, spaces."""


def cleaned(text: str, *, secret: bool = False, path: bool = False, listed: bool = False) -> str:
    """Return a value without what surrounds it.

    A ``secret`` may begin or end with a quote by chance, but not both, and a ``path`` may end
    with one, or have foreign spaces in it; something ``listed`` may go over several lines.

    Raises:
        ValueError: names the character, and what to do; it goes on after the value's name.

    """
    text = text.strip(BLANKS)
    if not text:
        return text
    if (sign := _quote(text, secret=secret, path=path)) is not None:
        raise ValueError(f"has {named(sign)} around it, which would be a part of it; leave it out")
    if (sign := _unseen(text, path=path, listed=listed)) is not None:
        raise ValueError(f"has {named(sign)} in it, which nobody sees; remove it")
    return text


def expanded(path: str) -> str:
    """Return a path with ``~`` or ``~user`` at its beginning replaced by that home.

    Raises:
        ValueError: there is no such user.

    """
    found = os.path.expanduser(path)  # noqa: PTH111 - pathlib's raises where there is no home
    if found.startswith("~"):
        user = path.partition("/")[0]
        raise ValueError(f"there is no home {user}; a folder of that name is written ./{user}")
    return found


def named(sign: str) -> str:
    """Return how a message calls a character: as it is, if it shows, with its number and name."""
    about = f"U+{ord(sign):04X}, {unicodedata.name(sign, 'a control character')}"
    return f"{sign} ({about})" if sign.isprintable() else about


def odd(text: str) -> str | None:
    """Return the first quote or unseen character of a text that takes neither."""
    return next((sign for sign in text if sign in QUOTES or _is_unseen(sign)), None)


def _quote(text: str, *, secret: bool, path: bool) -> str | None:
    """Return the quote that surrounds a value."""
    begins, ends = text[0] in QUOTES, text[-1] in QUOTES
    if begins and ends and len(text) > 1:
        return text[0]
    if begins and not secret:
        return text[0]
    return text[-1] if ends and not secret and not path else None


def _unseen(text: str, *, path: bool, listed: bool) -> str | None:
    for sign in (text[0], text[-1]):
        if _is_unseen(sign):
            return sign
    for sign in text:
        control = unicodedata.category(sign) == "Cc"
        if control and not (listed and sign in BLANKS):
            return sign
        if not control and not path and sign not in JOINERS and _is_unseen(sign):
            return sign
    return None


def _is_unseen(sign: str) -> bool:
    return sign != " " and unicodedata.category(sign) in UNSEEN
