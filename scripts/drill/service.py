"""The real service with the demo model, and the handles by which it is made to suffer."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from scripts.drill.child import Child, started
from scripts.drill.wait import TooLateError, free_port, until

READY_SECONDS: Final = 180.0
"""Loading the demo takes 4 s; on two cores beside a training run ten times as long."""

BATCH: Final = 6
PLACES: Final = 16
LIMITS: Final = {
    "MAX_CONCURRENT_REQUESTS": str(BATCH),
    "QUEUE_SIZE": str(PLACES),
    "MIN_SIZE": "128",
    "MAX_SIZE": "4096",
    "TORCH_THREADS": "1",
    "REQUEST_TIMEOUT_SECONDS": "200",
    "ENGINE_STALL_SECONDS": "45",
    "SHUTDOWN_TIMEOUT_SECONDS": "2",
}
"""Small, so that little traffic reaches them; a stall lasts long enough to be alerted on."""


class Service:
    """One service at one address, which can be ended and started again."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        session: aiohttp.ClientSession,
        *,
        module: str = "service",
        limits: Mapping[str, str] = LIMITS,
    ) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self.folder = folder
        self._session = session
        self._module = module
        self._faults = folder / "faults.json"
        self._environment = {
            "DATA_DIR": str(folder / "data"),
            "API_HOST": "127.0.0.1",
            "API_PORT": self.address.rpartition(":")[2],
            "FAULT_FILE": str(self._faults),
            "HF_HUB_OFFLINE": "1",
            "LOG_FORMAT": "json",
            "WEBHOOK_HOSTS": "127.0.0.1",
            "OMP_WAIT_POLICY": "PASSIVE",
            **limits,
            **environment,
        }
        self._process = AsyncExitStack()
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        """The process; there is one from ``start`` on."""
        assert self._child is not None  # noqa: S101 - a drill without a service is a mistake
        return self._child

    async def start(self, *, ready: bool = True, **settings: str) -> None:
        """Start it, with other settings than before if need be, and wait until it is ready."""
        await self.stop()
        self.fail()
        self._child = await self._process.enter_async_context(
            started(
                [sys.executable, "-m", self._module, "serve"],
                self.folder / "service.log",
                {**self._environment, **settings},
            )
        )
        if ready:
            await self.ready()

    async def stop(self) -> None:
        """End it, if it runs."""
        await self._process.aclose()
        self._child = None

    async def ready(self) -> None:
        """Wait until it takes work and has an engine for it."""
        await until(self.is_ready, READY_SECONDS, "service ready")

    async def is_ready(self) -> bool:
        """Whether the next request will be worked on.

        Raises:
            TooLateError: the service has ended; its last words.

        """
        if not self.child.running:
            raise TooLateError(f"the service ended:\n{self.child.tail()}")
        try:
            async with self._session.get(f"{self.url}/health/ready") as answer:
                return answer.status == HTTPStatus.OK
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def figure(self, name: str) -> float | None:
        """Return a metric without labels as the service shows it now, None if it does not."""
        async with self._session.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        words = next((line.split() for line in lines if line.startswith(f"{name} ")), None)
        return None if words is None else float(words[1])

    def fail(self, **faults: Any) -> None:
        """Let the engine commit these faults from now on, and no others.

        The file is replaced, never half written; each replacement counts from zero anew.
        """
        draft = self._faults.with_suffix(".new")
        draft.write_text(json.dumps(faults), encoding="utf-8")
        draft.replace(self._faults)

    async def engine(self) -> psutil.Process:
        """Wait until there is an engine and return it."""

        async def found() -> psutil.Process | None:
            return next((each for each in self.child.family() if _is_engine(each)), None)

        return await until(found, READY_SECONDS, "an engine process")

    async def kill_engine(self) -> psutil.Process:
        """Kill the engine as the kernel does when memory runs out; return what it was."""
        engine = await self.engine()
        engine.send_signal(signal.SIGKILL)
        return engine

    async def next_engine(self, last: psutil.Process) -> psutil.Process:
        """Wait for the engine that follows another one."""

        async def found() -> psutil.Process | None:
            engine = await self.engine()
            return engine if engine.pid != last.pid else None

        return await until(found, READY_SECONDS, "the next engine process")


def _is_engine(process: psutil.Process) -> bool:
    """Whether it is the spawned child, not the tracker of its resources, and still alive."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(
            process.cmdline()
        )
    except psutil.NoSuchProcess:
        return False


@asynccontextmanager
async def service_in(
    folder: Path,
    environment: Mapping[str, str],
    *,
    module: str = "service",
    limits: Mapping[str, str] = LIMITS,
) -> AsyncIterator[Service]:
    """Hand out a service that is not yet started, and end it with all its processes.

    ``module`` is what Python runs: the service, or one that breaks it in a way of its own;
    without ``limits`` it has those that the environment or its own defaults give it.
    """
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        service = Service(folder, environment, session, module=module, limits=limits)
        try:
            yield service
        finally:
            await asyncio.shield(asyncio.create_task(service.stop()))
