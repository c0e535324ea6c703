"""What aiohttp answers by itself, before or beside the middlewares, in our one shape.

A request that cannot be parsed never meets a middleware. aiohttp would answer it with
plain text that repeats the bytes, and write them into the log with a traceback.
"""

import asyncio
import warnings
from typing import Any, Final, cast

import structlog
from aiohttp import HttpVersion11, StreamReader, hdrs, http, http_exceptions, web

from service.config import Config
from service.errors import (
    MalformedRequest,
    ServiceError,
    TooManyConnections,
    UnsupportedEncoding,
)
from service.http import problems
from service.http.connections import Doorman, Pace, unread
from service.http.keys import CONFIG, METRICS, REQUEST_ID
from service.http.middlewares import request_id, sign
from service.http.template import UNMATCHED
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

MALFORMED: Final = (http_exceptions.HttpProcessingError, web.RequestPayloadError)
"""Mistakes of the client; their messages repeat what it sent, and that may be a prompt."""

CONTINUE: Final = "100-continue"
"""The only thing to expect that there is (RFC 9110, 10.1.1)."""

IDLE_SECONDS: Final = 75.0
"""Most proxies keep an idle connection for 60 s; the service should not be first to close it."""


LINGERING_SECONDS: Final = 5.0
"""How long the rest of a refused body is read, so that its sender gets to see the answer."""


class Connection(web.RequestHandler):
    """One connection; what goes wrong on it is answered as a problem."""

    def __init__(self, server: "Server", **settings: Any) -> None:
        super().__init__(server, **settings)
        self._metrics = server.metrics
        self._config = server.config
        self._doorman = server.doorman
        self._pace = Pace(server.config.send_timeout_seconds)
        self._head: asyncio.TimerHandle | None = None
        """Runs while the headers of a request are awaited or incomplete."""
        self._body: StreamReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let a client in, if there is a place; it has to begin at once."""
        if not self._doorman.enter(self):
            self.force_close()
            self._turn_away(cast("asyncio.Transport", transport))
            return
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place to somebody else."""
        self._doorman.leave(self)
        self._pace.stop()
        self._head_is_here()
        super().connection_lost(exc)

    @property
    def idle(self) -> bool:
        """Whether it has no request in work, whatever it may be sending."""
        return self._waiter is not None and not self._waiter.done()

    def pause_writing(self) -> None:
        """Watch a client that takes its answer slower than it is written."""
        super().pause_writing()
        if self.transport is not None:
            self._pace.watch(self.transport)

    def resume_writing(self) -> None:
        """Go on; the client has taken what there was."""
        super().resume_writing()
        self._pace.stop()

    def data_received(self, data: bytes) -> None:
        """Take what came; where a body turns out to be broken, its reader is told."""
        of_body = self._body is not None and not self._body.is_eof()
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._head_is_here()
            self._body = self._messages[-1][1] if self._messages else None
        elif data and not of_body:
            self._await_head()
        # The parser forgets a body that it fails in, and its handler would wait for the rest.
        broken = self._messages and not isinstance(self._messages[-1][0], http.RawRequestMessage)
        if broken and self._current_request is not None:
            self._current_request._cancel(web.RequestPayloadError())  # noqa: SLF001

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that could not be parsed, or an error outside the middlewares.

        Raises:
            ConnectionError: the client is gone, or already has a part of another answer.

        """
        del message  # It repeats the request.
        if isinstance(exc, ConnectionError):
            raise exc
        if isinstance(exc, MALFORMED):
            error = self._explained(exc)
        else:
            error = ServiceError("The error is in the log of the service.")
        answer = self._answer(request, error, exc or TimeoutError(status))
        if request.writer.output_size > 0:
            raise ConnectionError("A part of another answer is sent.")
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; what aiohttp refused before the middlewares becomes a problem."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:  # noqa: PLR2004 - no redirect
            resp = self._answer(request, problems.from_aiohttp(resp, request), resp)
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what aiohttp could not handle; of a client's mistake only its kind."""
        error = kw.get("exc_info")
        if isinstance(error, MALFORMED):
            log.info("request_malformed", error=type(error).__name__)
        else:
            super().log_exception(*args, **kw)

    def _await_head(self) -> None:
        if self._head is None:
            seconds = self._config.header_timeout_seconds
            self._head = self._loop.call_later(seconds, self._no_head)

    def _head_is_here(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _no_head(self) -> None:
        """End a connection whose next request does not get to the end of its headers."""
        self._head = None
        if self.idle:
            self.force_close()
        else:  # The request before it is still in work.
            self._await_head()

    def _turn_away(self, transport: asyncio.Transport) -> None:
        """Answer before anything is read: a connection more than allowed costs nothing else."""
        error = TooManyConnections(
            f"{self._config.max_connections} connections are open (MAX_CONNECTIONS).",
            retry_after=1,
        )
        self._metrics.refused.labels("connections").inc()
        self._metrics.http_requests.labels(UNMATCHED, "other", str(error.status)).inc()
        transport.write(unread(error))
        transport.close()

    def _answer(
        self, request: web.BaseRequest, error: ServiceError, cause: BaseException
    ) -> web.Response:
        request[REQUEST_ID] = request_id(request)
        if error.status < 500:  # noqa: PLR2004 - the first status that is our fault
            log.info(
                "request_malformed", error=type(cause).__name__, request_id=request[REQUEST_ID]
            )
        else:
            log.error("request_failed", exc_info=cause, request_id=request[REQUEST_ID])
        self._metrics.http_requests.labels(UNMATCHED, "other", str(error.status)).inc()
        answer = problems.problem(request, error)
        sign(request, answer)
        return answer

    def _explained(self, error: BaseException) -> ServiceError:
        """Say what is wrong without repeating it."""
        match error:
            case http_exceptions.ContentEncodingError():
                return UnsupportedEncoding()
            case http_exceptions.LineTooLong():
                return MalformedRequest(
                    f"The address and each header may have {self.max_line_size} bytes."
                )
            case http_exceptions.InvalidURLError():
                return MalformedRequest("The address must be ASCII; write the rest as %XX.")
            case http_exceptions.BadStatusLine():
                return MalformedRequest(
                    "The first line must be a method, a path and HTTP/1.1, without TLS."
                )
        return MalformedRequest("Its headers or the chunks of its body are no HTTP/1.1 (RFC 9112).")


class Server(web.Server):
    """What the event loop asks for a protocol at every new connection."""

    metrics: Metrics
    config: Config
    doorman: Doorman

    def __call__(self) -> Connection:
        """Return the protocol of one connection."""
        return Connection(self, loop=self._loop, **self._kwargs)


with warnings.catch_warnings():
    # aiohttp advises against it. But both run_app and the test server take an application
    # only, and nothing else in aiohttp 3 lets one choose the class of its connections.
    warnings.simplefilter("ignore", DeprecationWarning)

    class Application(web.Application):
        """An application whose connections are ours."""

        async def _handle(self, request: web.Request) -> web.StreamResponse:
            expected = request.headers.get(hdrs.EXPECT, CONTINUE)
            if expected.lower() != CONTINUE and request.version >= HttpVersion11:
                # aiohttp would repeat it, and fail where it is no UTF-8.
                raise web.HTTPExpectationFailed
            return await super()._handle(request)

        def _make_handler(self, **settings: Any) -> Server:
            made = super()._make_handler(**settings)
            server = Server(
                made.request_handler,
                request_factory=made.request_factory,
                handler_cancellation=made.handler_cancellation,
                loop=made._loop,  # noqa: SLF001 - see above
                **made._kwargs,  # noqa: SLF001
            )
            server.metrics = self[METRICS]
            server.config = self[CONFIG]
            server.doorman = Doorman(self[CONFIG].max_connections)
            return server


def application(config: Config) -> Application:
    """Return an application without routes.

    An idle connection ends after a while, and so does one whose next request does not
    arrive with all of its headers; the deadline of a request begins only behind them.
    """
    return Application(
        client_max_size=config.max_body_bytes,
        handler_args={
            "keepalive_timeout": max(config.request_timeout_seconds, IDLE_SECONDS),
            "lingering_time": LINGERING_SECONDS,
        },
    )
