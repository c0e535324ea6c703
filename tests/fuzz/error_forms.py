"""Forms of errors: each API has its own, and an error in another one is a fault."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

SDAPI: Final = ("/sdapi", "/internal", "/queue", "/config")
JSON: Final = "application/json"


@dataclass(frozen=True, kw_only=True)
class Form:
    """How an API says what is wrong."""

    media_type: str
    keys: frozenset[str]
    """Of the object that says it, apart from those that only some errors have."""

    inner: Callable[[Any], Mapping[str, Any]]
    """Returns that object."""

    name: str
    """Key of what tells kinds of errors apart."""

    def kind(self, content: str | bytes) -> str:
        """Return what an answer calls its kind of error.

        Raises:
            ValueError, KeyError, TypeError: the answer has another form.

        """
        found = self.inner(json.loads(content))
        if missing := self.keys - found.keys():
            raise ValueError(f"it has no {missing}")
        return str(found[self.name])


NATIVE: Final = Form(
    media_type="application/problem+json",
    keys=frozenset({"title", "status", "detail", "code", "request_id"}),
    inner=lambda body: body,
    name="code",
)
OPENAI: Final = Form(
    media_type=JSON,
    keys=frozenset({"message", "type", "param", "code"}),
    inner=lambda body: body["error"],
    name="code",
)
A1111: Final = Form(
    media_type=JSON,
    keys=frozenset({"error", "detail", "body", "errors"}),
    inner=lambda body: body,
    name="error",
)


def below(path: str, prefix: str) -> bool:
    """Tell whether a path is a prefix or below it, by whole segments."""
    return f"{path}/".startswith(f"{prefix}/")


def form_of(path: str) -> Form:
    """Return the form of errors of a path."""
    if below(path, "/v1"):
        return OPENAI
    return A1111 if any(below(path, prefix) for prefix in SDAPI) else NATIVE
