"""What each command of the command line does."""

import argparse
import asyncio
import json
import os
import socket
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from service.cli import exits, preflight
from service.cli.serving import binding, privacy
from service.cli.serving.shutdown import LEFT_SECONDS, Ending
from service.cli.terminal import print_error, show
from service.config.loading import secret_names
from service.config.table import Config
from service.engine.protocol import EngineFailed
from service.errors import error_class
from service.system import malloc
from service.telemetry import logs

if TYPE_CHECKING:
    from service.engine.source import EngineSource

log = structlog.get_logger(__name__)

HEALTH_SECONDS = 5.0
HEALTH_BYTES = 65_536
SHUTDOWN_MARGIN_SECONDS = 2.0
"""After the shutdown time unfinished requests are answered with 503; this sends the answers."""


def serve(config: Config, _arguments: argparse.Namespace) -> int:
    """Answer requests until SIGTERM or Ctrl-C, then finish what was accepted.

    A second signal does not wait for what is unfinished. Returns 0, or the code of what the
    model failed to load for, where the service does not stay (``exits.after_load``).
    """
    ending = Ending(config.shutdown_timeout_seconds)
    with ending.heard():
        logs.configure(config)
        for name in secret_names():  # Digests are kept; the engine's process inherits no secret.
            os.environ.pop(name, None)
        binding.check(config)
        preflight.check(config)
        with binding.listen(config) as listening:
            return asyncio.run(_serve(config, listening, ending))


async def _serve(config: Config, listening: socket.socket, ending: Ending) -> int:
    from service.app import create_app  # noqa: PLC0415 - the other commands need no server
    from service.http.middleware import auth  # noqa: PLC0415
    from service.http.server.accepting import Shortages  # noqa: PLC0415
    from service.http.state import DISPATCHER  # noqa: PLC0415

    privacy.close_memory(config)  # Before there is an engine.
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(Shortages())
    app = create_app(config, engines(config))
    stop = asyncio.Event()
    failures: list[EngineFailed] = []

    def on_load_failed(failed: EngineFailed) -> None:
        if exits.after_load(failed.code) is not None:
            failures.append(failed)
            stop.set()

    app[DISPATCHER].load_failed = on_load_failed

    def on_signal() -> None:
        if stop.is_set():
            app[DISPATCHER].give_up()
        stop.set()

    ending.serve(stop=on_signal, reload=lambda: auth.reload(app))
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=config.shutdown_timeout_seconds + SHUTDOWN_MARGIN_SECONDS,
    )
    await runner.setup()
    malloc.freeze_start()
    try:
        await web.SockSite(runner, listening, backlog=binding.BACKLOG).start()
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        log.info("service_listening", url=f"http://{shown}:{port}", pid=os.getpid())
        await stop.wait()
        ending.begun()
        longest = config.shutdown_timeout_seconds + SHUTDOWN_MARGIN_SECONDS
        loop.call_later(longest, _cut_off, runner)
    finally:
        await runner.cleanup()
    log.info("service_stopped")
    for failed in failures:
        print_error(f"{error_class(failed.code)().title}: {failed.detail}")
    code = next((exits.after_load(failed.code) or exits.Exit.DONE for failed in failures), 0)
    ending.deadline.within(LEFT_SECONDS, code)
    return code


def engines(config: Config) -> "EngineSource":
    """Return where the engines come from; nothing starts yet."""
    if config.engine == "ray":
        from service.engine.ray.source import RaySource  # noqa: PLC0415 - of many parts of its own

        return RaySource(config)
    from service.engine.process.local import engines_of  # noqa: PLC0415

    return engines_of(config)


def _cut_off(runner: web.AppRunner) -> None:
    """End the connections of clients that do not read their last answer: aiohttp waits twice."""
    for connection in runner.server.connections if runner.server is not None else ():
        if connection.transport is not None:
            connection.transport.abort()


def health(config: Config, _arguments: argparse.Namespace) -> int:
    """Print a running service's health; return 0 when it is ready and 1 when it is not."""
    host = binding.near(config.api_host)
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
        return print_error(f"no answer from {base}/health: {reason}")
    if not isinstance(report, dict) or not {"status", "model_loaded"} <= report.keys():
        return print_error(f"what answers at {base}/health is another service; see API_PORT.")
    ready = report["model_loaded"] is True and report["status"] == "healthy"
    return show(json.dumps(report, indent=2)) or int(not ready)
