"""What aiohttp answers by itself, before or beside the middlewares, in our one shape.

A request that cannot be parsed never meets a middleware. aiohttp would answer it with
plain text that repeats the bytes, and write them into the log with a traceback.
"""

import warnings
from typing import Any, Final

import structlog
from aiohttp import http, http_exceptions, web

from service.config import Config
from service.errors import MalformedRequest, ServiceError, UnsupportedEncoding
from service.http import problems
from service.http.keys import METRICS, REQUEST_ID
from service.http.middlewares import UNMATCHED, request_id, sign
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

MALFORMED: Final = (http_exceptions.HttpProcessingError, web.RequestPayloadError)
"""Mistakes of the client; their messages repeat what it sent, and that may be a prompt."""

IDLE_SECONDS: Final = 75.0
"""Most proxies keep an idle connection for 60 s; the service should not be first to close it."""


class Connection(web.RequestHandler):
    """One connection; what goes wrong on it is answered as a problem."""

    def __init__(self, server: "Server", **settings: Any) -> None:
        super().__init__(server, **settings)
        self._metrics = server.metrics

    def data_received(self, data: bytes) -> None:
        """Take what came; where a body turns out to be broken, its reader is told."""
        super().data_received(data)
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

    def __call__(self) -> Connection:
        """Return the protocol of one connection."""
        return Connection(self, loop=self._loop, **self._kwargs)


with warnings.catch_warnings():
    # aiohttp advises against it. But both run_app and the test server take an application
    # only, and nothing else in aiohttp 3 lets one choose the class of its connections.
    warnings.simplefilter("ignore", DeprecationWarning)

    class Application(web.Application):
        """An application whose connections are ours."""

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
            return server


def application(config: Config) -> Application:
    """Return an application without routes.

    An idle connection ends after a while, and so does one whose next request does not
    arrive with all of its headers; the deadline of a request begins only behind them.
    """
    return Application(
        client_max_size=config.max_body_bytes,
        handler_args={"keepalive_timeout": max(config.request_timeout_seconds, IDLE_SECONDS)},
    )
