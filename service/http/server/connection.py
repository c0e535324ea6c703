"""One connection: its limits, and error answers outside the middlewares.

A request that cannot be parsed reaches no middleware. aiohttp would answer it with plain text
that repeats the bytes, and write them into the log with a traceback.
"""

import asyncio
import re
from typing import Any, Final, cast

import structlog
from aiohttp import StreamReader, http, http_exceptions, web

from service.errors import MalformedRequest, ServiceError
from service.http.error_answers import error_answer, from_aiohttp, raw_error
from service.http.middleware.headers import add_common
from service.http.middleware.request_ids import request_id
from service.http.route import UNMATCHED, Api
from service.http.server import connections
from service.http.server.connections import WriteRateGuard
from service.http.server.half_close import HalfCloseCheck
from service.http.server.writing import PieceWriter, narrow
from service.http.state import CONFIG, CONNECTIONS, EXPECTED, METRICS, REQUEST_ID, ROUTES

log = structlog.get_logger(__name__)

MALFORMED: Final = (http_exceptions.HttpProcessingError, web.RequestPayloadError)
"""Mistakes of the client; their messages repeat what it sent, and that may be a prompt."""

NO_OR_TWO: Final = re.compile(r"(?:Missing '|Duplicate '?)([a-z-]+)", re.IGNORECASE)
"""Message of aiohttp about ``Host`` and other headers that have one value."""

TURNS: Final = 2
"""Turns of the event loop after which the first bytes of a new connection were read."""


class Connection(web.RequestHandler):
    """One connection; each error on it is answered in the form of its API."""

    def __init__(self, server: "Server", **settings: Any) -> None:
        super().__init__(server, **settings)
        app = server.app
        self._metrics, self._config, self._routes = app[METRICS], app[CONFIG], app[ROUTES]
        self._limiter = app[CONNECTIONS]
        self._rate_guard = WriteRateGuard(self._config.send_timeout_seconds)
        self._head: asyncio.TimerHandle | None = None
        """Timer while the headers of a request are awaited or incomplete."""
        self._refusal: ServiceError | None = None
        """Error for every request but a probe; the place is one of those kept for probes."""
        self._first = b""
        """The beginning of a request that may be a probe."""
        self._probes = False
        self._first_read = False
        """Whether the bytes that the client sent before it got its place have been read."""
        self._body: StreamReader | None = None
        self._writer: PieceWriter | None = None
        self._half_close = HalfCloseCheck(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, or refuse the client; the first request has to begin at once."""
        peer = (transport.get_extra_info("peername") or ("",))[0]
        self._refusal = self._limiter.admit(self, peer)
        if self._refusal is not None and not self._limiter.admit_probe(self, peer):
            self._refuse(cast("asyncio.Transport", transport), self._refusal)
            return
        self._metrics.connections.set(len(self._limiter))
        narrow(cast("asyncio.Transport", transport))
        super().connection_made(transport)
        self._await_head()
        self._count_turns(TURNS)

    def _count_turns(self, turns: int) -> None:
        self._first_read = not turns
        if turns:
            self._loop.call_soon(self._count_turns, turns - 1)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Free the place of the connection."""
        self._limiter.release(self)
        self._metrics.connections.set(len(self._limiter))
        self._rate_guard.stop()
        self._half_close.stop()
        self._head_is_here()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp ends here
        """Go on for a client that sends no more and has not got all of its answers."""
        if self.idle or self.transport is None:
            return False
        if self._body is not None and not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError())
        self._half_close.begin(self.transport)
        return True

    @property
    def half_closed(self) -> asyncio.Event:
        """Set as soon as the client sends no more, and is perhaps gone."""
        return self._half_close.begun

    def write_ahead(self) -> None:
        """Write the next byte of an awaited answer, to see whether the client is there."""
        if self._current_request is not None and self._writer is not None:
            self._writer.write_ahead()

    def writes(self, writer: PieceWriter) -> None:
        """Note the writer of the answer in work."""
        self._writer, writer.wrote = writer, self._rate_guard.wrote

    @property
    def idle(self) -> bool:
        """Whether it has no request in work, and none that is not read yet.

        Whatever else it may be sending does not matter.
        """
        waits = self._waiter is not None and not self._waiter.done()
        return self._first_read and (waits or not self._request_count)

    def pause_writing(self) -> None:
        """Watch a client that takes its answer slower than it is written."""
        super().pause_writing()
        if self.transport is not None:
            self._rate_guard.watch(self.transport)

    def resume_writing(self) -> None:
        """Go on; the client has taken what there was."""
        super().resume_writing()
        self._rate_guard.caught_up()

    def data_received(self, data: bytes) -> None:
        """Parse the bytes that came; the reader of a broken body gets an error."""
        if self._refusal is not None and not self._probes:
            self._first += data
            is_probe = self._routes.probes(self._first)
            if is_probe is False and self.transport is not None:
                self._refuse(self.transport, self._refusal)
            if not is_probe:
                return
            data, self._first, self._probes = self._first, b"", True
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
        """Send an answer; an error of aiohttp before the middlewares gets the form of its API."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:  # noqa: PLR2004 - no redirect
            resp = self._answer(request, from_aiohttp(resp, request), resp)
        unread = request.get(EXPECTED) and not request.content.is_eof()
        if self._refusal is not None or unread or self._last:
            # Where a body was not asked for, what follows may be it or another request.
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if self._last:
            resp.force_close()
        return finished

    @property
    def _last(self) -> bool:
        return self.half_closed.is_set() and not self._messages

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log an error that aiohttp could not handle; of a client's mistake only its kind."""
        error = kw.get("exc_info")
        if isinstance(error, MALFORMED):
            log.info("request_malformed", error=type(error).__name__)
        else:
            super().log_exception(*args, **kw)

    def _await_head(self) -> None:
        if self._head is None:
            seconds = self._config.header_timeout_seconds
            if self._refusal is not None:
                seconds = min(seconds, connections.PROBE_SECONDS)
            self._head = self._loop.call_later(seconds, self._no_head)

    def _head_is_here(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _no_head(self) -> None:
        """End a connection whose next request does not get to the end of its headers."""
        self._head = None
        if self._refusal is not None and self.transport is not None and not self._request_count:
            self._refuse(self.transport, self._refusal)
        elif self.idle:
            self.force_close()
        else:  # The request before it is still in work.
            self._await_head()

    def _refuse(self, transport: asyncio.Transport, error: ServiceError) -> None:
        """Answer without parsing a request: a connection beyond the limit costs nothing else."""
        api = self._routes.api("/")
        self._metrics.refused.labels(api.name, error.refusal).inc()
        self._count(api, error)
        transport.write(raw_error(error, api))
        transport.close()
        self.force_close()

    def _count(self, api: Api, error: ServiceError) -> None:
        labels = (api.name, UNMATCHED, "other", str(error.status))
        self._metrics.http_requests.labels(*labels).inc()

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
        api = self._routes.api(request.rel_url.raw_path)
        self._count(api, error)
        answer = error_answer(request, error, api)
        add_common(request, answer)
        return answer

    def _explained(self, error: BaseException) -> ServiceError:
        """Name the mistake without repeating what was sent."""
        match error:
            case http_exceptions.LineTooLong():
                most = self.max_line_size
                detail = f"The address and each header must not be longer than {most} bytes."
            case http_exceptions.InvalidURLError():
                detail = "The address must be ASCII; write the rest as %XX."
            case http_exceptions.BadStatusLine():
                detail = "The first line must be a method, a path and HTTP/1.1, without TLS."
            case http_exceptions.BadHttpMessage() if found := NO_OR_TWO.match(error.message):
                detail = f"The header {found[1]} must be sent exactly once."
            case _:
                detail = "Its headers or the chunks of its body are no HTTP/1.1 (RFC 9112)."
        return MalformedRequest(detail)


class Server(web.Server):
    """Maker of connections for the event loop."""

    app: web.Application

    def __call__(self) -> Connection:
        """Return the protocol of one connection."""
        return Connection(self, loop=self._loop, **self._kwargs)
