"""A whole application on the loopback address, on a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from service.app import create_app
from service.config.loading import load
from tests.support.simulation.fake_engine import FakeEngine

SMALL = {"DEFAULT_SIZE": "64", "MIN_SIZE": "64", "MAX_SIZE": "128", "MAX_IMAGES": "2"}
"""Images of this size cost a millisecond; what is fuzzed is what stands around them."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running service."""

    url: str
    port: int
    engine: FakeEngine
    do: Callable[[Callable[[], object]], object]
    """Call something on the service's event loop."""


@contextmanager
def serving(data_dir: Path | str, **variables: str) -> Iterator[Served]:
    """Run the service with these variables around the fake engine."""
    config = load({**SMALL, "DATA_DIR": str(data_dir), **variables})
    engine = FakeEngine()
    started: Future[Served] = Future()
    ending = asyncio.Event()

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def do(call: Callable[[], object]) -> object:
            async def called() -> object:
                return call()

            return asyncio.run_coroutine_threadsafe(called(), loop).result()

        runner = web.AppRunner(
            create_app(config, engine), handler_cancellation=True, access_log=None
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            loop.call_soon(
                started.set_result,
                Served(url=f"http://127.0.0.1:{port}", port=port, engine=engine, do=do),
            )
            ends.set_result(lambda: loop.call_soon_threadsafe(ending.set))
            await ending.wait()
        finally:
            await runner.cleanup()

    def serve() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    ends: Future[Callable[[], object]] = Future()
    thread = threading.Thread(target=serve, name="service")
    thread.start()
    try:
        yield started.result()
    finally:
        if ends.done():
            ends.result()()
        thread.join()
