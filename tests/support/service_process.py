"""A real service in a process of its own, watched by its log and by what it answers."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import aiohttp
import psutil

from tests.support.programs import WAIT_SECONDS, Program
from tests.support.wait import TooLateError, free_port, until

__all__ = [
    "READY_SECONDS",
    "SAME_IMAGES",
    "WAIT_SECONDS",
    "ServiceProcess",
    "ending",
    "running_service",
    "service_in",
]
READY_SECONDS = 180.0
"""Loading the demo takes 4 s; on two cores beside a training run ten times as long."""

SAME_IMAGES: dict[str, Any] = {
    "MAX_CONCURRENT_REQUESTS": 1,  # Images that share a batch may differ by one of 255.
    "TORCH_THREADS": 1,
    "MIN_SIZE": 64,
    "DEFAULT_SIZE": 128,  # Of the trial at each start, too.
    "BATCH_CALIBRATION": "false",
}
"""Settings of services whose small images are compared, byte for byte."""


class ServiceProcess(Program):
    """A service, which can be ended and started again; its log lines are dictionaries."""

    module = "service"
    prefix: tuple[str, ...] = ()
    """What its command is started by."""

    def __init__(self, **settings: Any) -> None:
        """Start it with settings, or as ``service_in`` wants it: at another time, in a folder."""
        folder: Path | None = settings.pop("folder", None)
        self.module = settings.pop("module", "") or self.module
        start = settings.pop("start", True)
        # A folder belongs to one service: each has its own unless a test says otherwise.
        self._temporary = TemporaryDirectory()
        self.folder = folder or Path(self._temporary.name)
        super().__init__(folder and folder / "service.log")
        self.settings = {
            "DATA_DIR": str(self.folder / "data"),
            "API_PORT": "0",
            "LOG_FORMAT": "json",
            "HF_HUB_OFFLINE": "1",
            "ALLOW_DEBUGGER": "true",  # Tests look into its /proc, not always as root.
            "OMP_WAIT_POLICY": "PASSIVE",
            **{name: str(value) for name, value in settings.items()},
        }
        self.log: list[dict[str, Any]] = []
        self.strays: list[str] = []
        """Lines that are no JSON: a log that a collector cannot read."""
        if start:
            self.launch(self.command(), self.settings)

    def command(self) -> list[str]:
        """Return what it is started by."""
        return [*self.prefix, sys.executable, "-m", self.module, "serve"]

    def _hear(self, line: str) -> None:
        super()._hear(line)
        try:
            self.log.append(json.loads(line))
        except ValueError:
            self.strays.append(line)

    def lines(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Return the log lines of an event so far, those with these fields."""
        wanted = {"event": event, **fields}.items()
        return [line for line in list(self.log) if wanted <= line.items()]

    def logged(self, event: str, *, count: int = 1) -> dict[str, Any]:
        """Wait for the ``count``-th log line of that event and return it."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.log if line["event"] == event]

        with self._more:
            self._more.wait_for(
                lambda: len(found()) >= count or not self._reader.is_alive(), WAIT_SECONDS
            )
            if len(found()) < count:
                raise AssertionError(f"no {event!r} in the log:\n{''.join(self.output)}")
            return found()[count - 1]

    @property
    def url(self) -> str:
        """Where it listens."""
        if (port := self.settings["API_PORT"]) != "0":
            return f"http://127.0.0.1:{port}"
        return str(self.logged("service_listening")["url"])

    @property
    def address(self) -> str:
        """Host and port."""
        return self.url.removeprefix("http://")

    @property
    def engine_pid(self) -> int:
        """Process id of the latest engine."""
        return int([line for line in self.log if line["event"] == "engine_started"][-1]["pid"])

    async def start(self, *, ready: bool = True, **settings: str) -> None:
        """Start it anew, with other settings than before if need be; wait until it is ready."""
        await self.stop()
        self.launch(self.command(), {**self.settings, **settings})
        if ready:
            await self.ready()

    async def stop(self) -> None:
        """End it, if it was started, without holding up the event loop."""
        if hasattr(self, "process"):
            await asyncio.shield(asyncio.to_thread(self.end))

    async def ready(self) -> None:
        """Wait until it takes work and has an engine for it."""
        await until(self.is_ready, READY_SECONDS, "service ready")

    async def is_ready(self) -> bool:
        """Whether the next request will be worked on.

        Raises:
            TooLateError: the service has ended; its last words.

        """
        if not self.running:
            raise TooLateError(f"the service ended:\n{self.tail()}")
        try:
            return (await self._get("/health/ready"))[0] == HTTPStatus.OK
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def figures(self) -> dict[str, float]:
        """Return its metrics now, by name and labels as they are written."""
        _, text = await self._get("/metrics")
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines if name}

    async def figure(self, name: str, **labels: str) -> float | None:
        """Return the sum of a metric's series with these labels, None where there is none."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        found = [
            value
            for series, value in (await self.figures()).items()
            if series.partition("{")[0] == name and all(each in series for each in wanted)
        ]
        return sum(found) if found else None

    async def _get(self, path: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=20)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(self.url + path) as answer,
        ):
            return answer.status, await answer.text()

    async def engine(self, after: psutil.Process | None = None) -> psutil.Process:
        """Wait until there is an engine, another one than ``after``, and return it."""

        async def found() -> psutil.Process | None:
            return next((each for each in self.engines() if each != after), None)

        return await until(found, READY_SECONDS, "an engine process")

    def engines(self) -> list[psutil.Process]:
        """Return the engines that there are now."""
        return [each for each in self.family() if _is_engine(each)]

    async def kill_engine(self, after: psutil.Process | None = None) -> psutil.Process:
        """Kill the engine as the kernel does when memory runs out; return what it was."""
        engine = await self.engine(after)
        engine.send_signal(signal.SIGKILL)
        return engine


def _is_engine(process: psutil.Process) -> bool:
    """Whether it is the spawned child, not the tracker of its resources, and still alive."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(
            process.cmdline()
        )
    except psutil.NoSuchProcess:
        return False


Started = TypeVar("Started", bound=ServiceProcess)


@contextmanager
def running_service(**settings: Any) -> Iterator[ServiceProcess]:
    """Start a service, hand it out when its model is loaded, and end it by its own id."""
    with ending(ServiceProcess(**settings)) as service:
        service.logged("model_loaded")
        yield service


@contextmanager
def ending(service: Started) -> Iterator[Started]:
    """End a service that was started, whatever became of it, by its own id."""
    try:
        yield service
    finally:
        if service.running:
            service.process.kill()
            service.process.wait(WAIT_SECONDS)
        service._reader.join(WAIT_SECONDS)
        assert service.process.stdout is not None
        service.process.stdout.close()
        service._temporary.cleanup()


@asynccontextmanager
async def service_in(
    folder: Path, *, module: str = "", **settings: Any
) -> AsyncIterator[ServiceProcess]:
    """Hand out a service that is not yet started, and end it with all its processes.

    Wherever it is started again it has the same address. ``module`` is what Python runs: the
    service, or one that breaks it in a way of its own.
    """
    service = ServiceProcess(
        **{"API_PORT": free_port(), **settings}, folder=folder, module=module, start=False
    )
    try:
        yield service
    finally:
        await service.stop()
        service._temporary.cleanup()
