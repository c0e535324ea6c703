"""An application whose connections have limits and answer malformed requests in our form."""

import asyncio
import warnings
from typing import Any, Final, cast

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, hdrs, http_exceptions, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from service.config.table import Config
from service.http import prefix
from service.http.server.connection import Connection, Server
from service.http.server.writing import PieceWriter
from service.http.state import CONNECTIONS, EXPECTED, PREFIX, UNSUPPORTED

CONTINUE: Final = "100-continue"
"""The only expectation that HTTP defines (RFC 9110, 10.1.1)."""

IDLE_SECONDS: Final = 75.0
"""Most proxies keep an idle connection for 60 s; the service should not be first to close it."""

LINGERING_SECONDS: Final = 5.0
"""How long the rest of a refused body is read, so that its sender gets to see the answer."""

with warnings.catch_warnings():
    # aiohttp advises against it. But both run_app and the test server take an application
    # only, and nothing else in aiohttp 3 lets one choose the class of its connections.
    warnings.simplefilter("ignore", DeprecationWarning)

    class Application(web.Application):
        """An application with our class of connections."""

        async def _handle(self, request: web.Request) -> web.StreamResponse:
            if UNSUPPORTED in request:
                raise http_exceptions.BadStatusLine
            if request.get(EXPECTED, CONTINUE) != CONTINUE:
                raise web.HTTPExpectationFailed
            return await super()._handle(request)

        def _make_request(
            self,
            message: RawRequestMessage,
            payload: StreamReader,
            protocol: web.RequestHandler,
            writer: AbstractStreamWriter,
            task: "asyncio.Task[None]",
            _cls: type[web.Request] = web.Request,
        ) -> web.Request:
            del writer
            ours = PieceWriter(protocol, protocol._loop)  # noqa: SLF001 - as aiohttp makes its own
            cast("Connection", protocol).writes(ours)
            message, notes = _understood(message)
            request = super()._make_request(message, payload, protocol, ours, task, _cls)
            request.update(notes)
            # A request that cannot be parsed has a plain mapping of headers, and none in it.
            named = prefix.HEADER in message.headers
            if named and self[CONNECTIONS].proxied(request.remote or ""):
                request[PREFIX] = prefix.read(message.headers.getall(prefix.HEADER))
            return request

        def _make_handler(self, **settings: Any) -> Server:
            made = super()._make_handler(**settings)
            server = Server(
                made.request_handler,
                request_factory=made.request_factory,
                handler_cancellation=made.handler_cancellation,
                loop=made._loop,  # noqa: SLF001 - see above
                **made._kwargs,  # noqa: SLF001
            )
            server.app = self
            return server


def _understood(message: RawRequestMessage) -> tuple[RawRequestMessage, dict[Any, Any]]:
    """Return a request without the parts that aiohttp would answer too early, and notes of them.

    It would grant ``Expect: 100-continue`` before anything is checked, and answer HTTP/2.0 in kind.
    """
    notes: dict[Any, Any] = {}
    if message.version not in (HttpVersion10, HttpVersion11):
        notes[UNSUPPORTED] = True
        message = message._replace(version=HttpVersion11)
    if hdrs.EXPECT in message.headers:
        headers = CIMultiDict(message.headers)
        expected = ",".join(headers.popall(hdrs.EXPECT)).strip().lower()
        message = message._replace(headers=CIMultiDictProxy(headers))
        if message.version == HttpVersion11:
            notes[EXPECTED] = expected
    return message, notes


def application(config: Config) -> Application:
    """Return an application without routes.

    An idle connection ends after a while, and so does one whose next request does not
    arrive with all of its headers; the deadline of a request begins only behind them.
    """
    return Application(
        client_max_size=config.max_body_bytes,
        handler_args={
            "keepalive_timeout": IDLE_SECONDS,
            "auto_decompress": False,  # It takes a body that ends too early; see ``body``.
            "lingering_time": LINGERING_SECONDS,
        },
    )
