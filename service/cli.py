"""What each command of the command line does."""

import argparse
import asyncio
import errno
import json
import os
import signal
import socket
import sys
import urllib.request
from http.client import HTTPException

import structlog
from aiohttp import web

from service import binding, exits, start
from service.config import Config, secret_names
from service.engine.messages import EngineFailed
from service.errors import ConfigError, PortTaken, error_class
from service.telemetry import logs
from service.terminal import complain, show

log = structlog.get_logger(__name__)

HEALTH_SECONDS = 5.0
HEALTH_BYTES = 65_536
SHUTDOWN_MARGIN_SECONDS = 5.0
"""After the shutdown time unfinished requests are answered with 503; this sends the answers."""


def serve(config: Config, _arguments: argparse.Namespace) -> int:
    """Answer requests until SIGTERM or Ctrl-C, then finish what was accepted.

    A second signal does not wait for what is unfinished. Returns 0, or the code of what the
    model failed to load for, where the service does not stay (``exits.after_load``).
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # Nothing is accepted yet.
    logs.configure(config)
    for name in secret_names():  # Digests are kept; the engine's process inherits no secret.
        os.environ.pop(name, None)
    binding.check(config)
    start.check(config)
    with _listen(config) as door:
        code = asyncio.run(_serve(config, door))
    log.info("service_stopped")
    return code


async def _serve(config: Config, door: socket.socket) -> int:
    from service.app import create_app  # noqa: PLC0415 - the other commands need no server
    from service.engine.process import ProcessEngine  # noqa: PLC0415
    from service.http.accepting import Shortages  # noqa: PLC0415
    from service.http.keys import CONSUMER  # noqa: PLC0415

    asyncio.get_running_loop().set_exception_handler(Shortages())
    app = create_app(config, ProcessEngine(config))
    stop = asyncio.Event()
    failures: list[EngineFailed] = []

    def on_load_failed(failed: EngineFailed) -> None:
        if exits.after_load(failed.code) is not None:
            failures.append(failed)
            stop.set()

    app[CONSUMER].load_failed = on_load_failed

    def on_signal() -> None:
        if stop.is_set():
            app[CONSUMER].give_up()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=config.shutdown_timeout_seconds + SHUTDOWN_MARGIN_SECONDS,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, door).start()
        host, port = door.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        log.info("service_listening", url=f"http://{shown}:{port}", pid=os.getpid())
        await stop.wait()
    finally:
        await runner.cleanup()
    for failed in failures:
        complain(f"{error_class(failed.code)().title}: {failed.detail}")
    return next((exits.after_load(failed.code) or exits.Exit.DONE for failed in failures), 0)


def _listen(config: Config) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.api_host else socket.AF_INET
    try:
        return socket.create_server((config.api_host, config.api_port), family=family, backlog=128)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(
                f"API_HOST={config.api_host}, API_PORT={config.api_port}: cannot listen there "
                f"({error.strerror}); name an address of this machine and a port from 1024 on."
            ) from error
        raise PortTaken(
            f"API_HOST={config.api_host}, API_PORT={config.api_port}: cannot listen there "
            f"({error.strerror}); set API_PORT to a free port, or 0 for any."
        ) from error


def health(config: Config, _arguments: argparse.Namespace) -> int:
    """Print a running service's health; return 0 when it is ready and 1 when it is not."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.api_host, config.api_host)  # noqa: S104
    base = (
        f"http://[{host}]:{config.api_port}" if ":" in host else f"http://{host}:{config.api_port}"
    )
    # The service is asked itself: a proxy of the environment leads to the world outside.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{base}/health", timeout=HEALTH_SECONDS) as answer:
            report = json.loads(answer.read(HEALTH_BYTES))
    except (OSError, ValueError, HTTPException) as error:
        # A peer that speaks no HTTP can send line breaks, and an empty line says nothing.
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        return complain(f"no answer from {base}/health: {reason}")
    if not isinstance(report, dict) or not {"status", "model_loaded"} <= report.keys():
        return complain(f"what answers at {base}/health is another service; see API_PORT.")
    ready = report["model_loaded"] is True and report["status"] == "healthy"
    return show(json.dumps(report, indent=2)) or int(not ready)
