"""The decorators of aiohttp-apispec, with the types that the package does not bring."""

from collections.abc import Callable
from typing import TypeVar

import aiohttp_apispec
from aiohttp.typedefs import Handler

H = TypeVar("H", bound=Handler)

docs: Callable[..., Callable[[H], H]] = aiohttp_apispec.docs
request_schema: Callable[..., Callable[[H], H]] = aiohttp_apispec.request_schema
response_schema: Callable[..., Callable[[H], H]] = aiohttp_apispec.response_schema
