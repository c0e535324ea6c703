"""API keys and tokens: read from settings, kept as digests only, compared in constant time.

A secret here is long and random, and no word that a person thought of. One round of a keyed
hash is then enough: nobody can try 2**128 secrets against a stolen digest, and a slow hash
would let every stranger burn a tenth of a second of CPU with each wrong guess. The hash is
keyed with a salt of this process, so digests mean nothing outside of it.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from service.config.cleaning import cleaned, named, odd
from service.config.webhook_key import webhook_key

SHORTEST_SECRET: Final = 24
"""Characters: 96 bits in hexadecimal, 144 in base64; nobody guesses either."""

LONGEST_SECRET: Final = 256
FEWEST_LETTERS: Final = 8
"""Different characters; random secrets of this length practically always have more."""

MOST_NAMES: Final = 100
"""Each name is a label value of the metrics: 7 series."""

SECRET: Final = re.compile(r"[A-Za-z0-9._~+/-]+={0,2}", re.ASCII)
"""What may stand behind ``Bearer`` (RFC 6750, 2.1)."""

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", re.ASCII)
NOBODY: Final = frozenset({"anonymous", "other"})
"""Names that the metrics use for requests without a key, and for keys that are gone."""

OWN: Final = "webhook_secret"
"""The option for what a key's webhooks are signed with."""

CURE: Final = "make one with: openssl rand -hex 32"

_SALT: Final = secrets.token_bytes(32)


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """Who asks, and what is agreed with them; the secret is no part of it.

    ``None`` takes what the settings say for everybody; a limit of 0 is none.
    """

    name: str
    rate: float | None = None
    """Requests for images in a minute."""
    burst: int | None = None
    images: int | None = None
    """Images in 24 hours."""
    priority: int = 0
    """Its share of the GPU while others wait, too: a key of 2 gets twice that of a key of 1."""


ANONYMOUS: Final = ApiKey(name="anonymous")


class Token:
    """One secret without a name, such as METRICS_TOKEN; an empty one is none."""

    def __init__(self, text: str = "") -> None:
        self._digest = _digest(_checked(text)) if text else b""

    def __bool__(self) -> bool:
        return bool(self._digest)

    def __repr__(self) -> str:
        return "<set>" if self else ""

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        # It does not travel: the process of the engine has no use for it.
        return type(self), ("",)

    def matches(self, given: str) -> bool:
        """Return whether ``given`` is the secret."""
        return bool(self) and hmac.compare_digest(self._digest, _digest(given))


class Keys:
    """API keys as they are written in a setting, as digests with what is agreed for each."""

    def __init__(self, text: str = "") -> None:
        """Read ``name:secret`` pairs, between commas.

        Raises:
            ValueError: names the pair by its place, and never repeats it.

        """
        self._entries: tuple[tuple[bytes, ApiKey], ...] = ()
        self.webhook_keys: Mapping[str, tuple[bytes, ...]] = {}
        """By name what webhooks are signed with, where a name has a secret of its own for them."""
        if text:
            self._take((f"pair {n}", pair) for n, pair in enumerate(text.split(","), start=1))

    @classmethod
    def from_lines(cls, text: str) -> Self:
        """Read a file: ``name:secret [rate=30] [burst=5] [images=500] [priority=2]`` a line.

        ``webhook_secret=SECRET``, too: what that key's webhooks are signed with. ``#`` begins a
        comment.

        Raises:
            ValueError: names the line by its number, and never repeats it.

        """
        keys = cls()
        lines = map(_without_comment, text.splitlines())
        keys._take((f"line {n}", line) for n, line in enumerate(lines, start=1))
        return keys

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<{len(self)} keys: {', '.join(self.names)}>" if self else ""

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        # They do not travel: the process of the engine has no use for them.
        return type(self), ("",)

    @property
    def names(self) -> tuple[str, ...]:
        """Each name once, in the order of the setting."""
        return tuple(dict.fromkeys(key.name for _, key in self._entries))

    @property
    def weights(self) -> dict[str, int]:
        """The share of each name in the queue's turns, 1 where none was agreed."""
        return {key.name: max(1, key.priority) for _, key in self._entries}

    def find(self, given: str) -> ApiKey | None:
        """Return whose secret this is; it takes as long for every wrong one."""
        digest, found = _digest(given), None
        for known, key in self._entries:
            if hmac.compare_digest(known, digest):
                found = key
        return found

    def _take(self, pairs: Iterable[tuple[str, str]]) -> None:
        entries: dict[bytes, ApiKey] = {}
        agreed: dict[str, ApiKey] = {}
        signing: dict[str, tuple[bytes, ...]] = {}
        for place, pair in pairs:
            try:
                if not (pair := cleaned(pair)):
                    continue
                secret, key, signed_with = _pair(pair)
            except ValueError as error:
                raise ValueError(f"{place} {error}") from None
            if _digest(secret) in entries:
                raise ValueError(f"{place} ({key.name}) has a secret that stands above already")
            # A name may have two secrets: the old and the new one while clients change over.
            if agreed.setdefault(key.name, key) != key:
                raise ValueError(f"{place} gives {key.name} other limits than the one above")
            entries[_digest(secret)] = key
            if signed_with is not None:
                signing[key.name] = (*signing.get(key.name, ()), signed_with)
        if not entries:
            raise ValueError("holds no key; write name:secret")
        if len(agreed) > MOST_NAMES:
            raise ValueError(f"holds more than {MOST_NAMES} names")
        self._entries = tuple(entries.items())
        self.webhook_keys = signing


def _without_comment(line: str) -> str:
    kept = line.partition("#")[0]
    last = re.split(r"\s", kept)[-1]
    # Cut short by a sign of its own, a secret would be another one, without a word.
    return line if last.startswith(f"{OWN}=") else kept


def _pair(text: str) -> tuple[str, ApiKey, bytes | None]:
    """Return a secret, whose it is, and what that key's webhooks are signed with."""
    pair, *options = text.split()
    name, colon, secret = pair.partition(":")
    if not colon:
        raise ValueError("must be name:secret")
    if not NAME.fullmatch(name) or name.lower() in NOBODY:
        raise ValueError(
            "must begin with a name of 1-32 characters of A-Za-z0-9_.-, "
            f"a letter or digit first, and not {' or '.join(sorted(NOBODY))}"
        )
    try:
        own = [word for word in options if word.startswith(f"{OWN}=")]
        limits = _options([word for word in options if word not in own])
        key = ApiKey(name=name, **limits)
        return _checked(secret), key, _signing_key(own, secret)
    except ValueError as error:
        raise ValueError(f"({name}) {error}") from None


def _checked(secret: str) -> str:
    if (sign := odd(secret)) is not None:
        raise ValueError(f"has {named(sign)} in its secret; remove it")
    if not SECRET.fullmatch(secret):
        raise ValueError("needs a secret of A-Za-z0-9._~+/- only, with = at its end at most")
    if not SHORTEST_SECRET <= len(secret) <= LONGEST_SECRET:
        raise ValueError(f"needs a secret of {SHORTEST_SECRET}-{LONGEST_SECRET} characters; {CURE}")
    if len(set(secret)) < FEWEST_LETTERS:
        raise ValueError(f"needs a random secret; {CURE}")
    return secret


def _options(words: list[str]) -> dict[str, Any]:
    kinds: dict[str, type[float | int]] = {"rate": float, "burst": int, "images": int}
    kinds["priority"] = int
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in kinds or name in found:
            raise ValueError(f"takes each of {', '.join(kinds)} once, as rate=30, and {OWN}")
        try:
            number = kinds[name](value)
        except ValueError:
            raise ValueError(f"needs a number for {name}") from None
        low, high = (-100, 100) if name == "priority" else (1 if name == "burst" else 0, 10**9)
        if not low <= number <= high:
            raise ValueError(f"needs {name} between {low} and {high}")
        found[name] = number
    return found


def _signing_key(given: list[str], secret: str) -> bytes | None:
    """Return the key that ``webhook_secret=`` stands for."""
    if not given:
        return None
    if len(given) > 1:
        raise ValueError(f"takes {OWN} once")
    own = given[0].removeprefix(f"{OWN}=")
    if not SECRET.fullmatch(own) or len(own) > LONGEST_SECRET:
        raise ValueError(
            f"needs a {OWN} of 16-{LONGEST_SECRET} characters of A-Za-z0-9._~+/- only, "
            "with = at its end at most"
        )
    if own == secret:
        raise ValueError(f"has its own secret as {OWN}, which receivers know; {CURE}")
    try:
        return webhook_key(own)
    except ValueError as error:
        raise ValueError(f"has an unusable {OWN}: {error}") from None


def _digest(secret: str) -> bytes:
    # Header bytes beyond ASCII reach us as surrogates.
    return hmac.digest(_SALT, secret.encode("utf-8", "surrogateescape"), hashlib.sha256)
