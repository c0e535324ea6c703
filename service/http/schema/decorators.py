"""The decorators of aiohttp-apispec, with the types that the package does not bring."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import aiohttp_apispec
from aiohttp.typedefs import Handler
from marshmallow import Schema

H = TypeVar("H", bound=Handler)

docs: Callable[..., Callable[[H], H]] = aiohttp_apispec.docs
request_schema: Callable[..., Callable[[H], H]] = aiohttp_apispec.request_schema


def described_body(schema: Schema, *, example: Mapping[str, Any]) -> Callable[[H], H]:
    """Describe the body of a handler that reads it itself."""

    def described(handler: H) -> H:
        sent = {"schema": schema, "options": {"required": True}, "example": dict(example)}
        handler.__apispec__["schemas"].append(sent)  # type: ignore[attr-defined]
        return handler

    return described


response_schema: Callable[..., Callable[[H], H]] = aiohttp_apispec.response_schema
