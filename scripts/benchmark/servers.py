"""The servers that take turns: the service, and those that it is compared with."""

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from scripts.benchmark.rows import BenchmarkError
from scripts.chart import EXTRA
from tests.support.load_client import Client
from tests.support.programs import Program, started
from tests.support.service_process import READY_SECONDS, service_in
from tests.support.wait import TooLateError, free_port, until

SERVICE: Final = "service"
PLAIN: Final = "plain diffusers"
LITSERVE: Final = "LitServe"
MODULES: Final = {
    PLAIN: "scripts.benchmark.plain_server",
    LITSERVE: "scripts.benchmark.litserve_server",
}
OTHERS: Final = {"plain": PLAIN, "litserve": LITSERVE}
"""Names on the command line."""

CURE: Final = "(a valid one goes to --api-key)"
ROOT: Final = Path(__file__).parents[2]
EVERYWHERE: Final = {
    # Started from wherever the user is, Python finds the modules of this folder, not others.
    "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
    # What the service sets for its engine: else the others take the fastest of several cards.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0"),
    "LOG_LEVEL": "INFO",
}
"""Of all servers; threads that wait leave the cores to whose turn it is."""

OFF: Final = (
    *("API_KEYS", "API_KEYS_FILE", "FAULT_FILE"),
    *("RATE_LIMIT_PER_MINUTE", "QUOTA_IMAGES_PER_DAY"),
)
"""Settings that are as they come, whatever the environment says; all others are the user's."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server that listens."""

    name: str
    client: Client
    child: Program | None = None
    """A process that stands still while it is not its turn."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let it run; the others stand still, for LitServe looks for work all the time.

        The service does not: its processes watch each other, and would miss each other.
        """
        self.resume()
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        """Let it stand still."""
        self._each(psutil.Process.suspend)

    def resume(self) -> None:
        """Let it run again."""
        self._each(psutil.Process.resume)

    def _each(self, act: Callable[[psutil.Process], None]) -> None:
        if self.child is None:
            return
        family = self.child.family()
        with contextlib.suppress(psutil.NoSuchProcess):
            # The id of one that has ended may be another's by now.
            family += [psutil.Process(self.child.pid)] if self.child.running else []
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                act(process)


def require(others: tuple[str, ...]) -> None:
    """Insist that what is to be compared with is installed.

    Raises:
        BenchmarkError: names what is not, and how to install it.

    """
    for package in (*(["litserve"] if LITSERVE in others else []), "diffusers"):
        if others and find_spec(package) is None:
            raise BenchmarkError(f"--compare: {package} is not installed; {EXTRA} brings it")


@asynccontextmanager
async def running(
    settings: dict[str, str], others: tuple[str, ...], folder: Path, session: aiohttp.ClientSession
) -> AsyncIterator[list[Server]]:
    """Start the service with settings, and the others, one after the other; end them all.

    Raises:
        TooLateError: one does not come up; its last words.

    """
    environment = {**EVERYWHERE, **dict.fromkeys(OFF, ""), **settings}
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(service_in(folder, **environment))
        await service.start()
        servers = [Server(name=SERVICE, client=Client(service.url, session))]
        for name in others:
            server = await stack.enter_async_context(_other(name, settings, folder, session))
            server.pause()
            servers.append(server)
        yield servers


@asynccontextmanager
async def _other(
    name: str, settings: dict[str, str], folder: Path, session: aiohttp.ClientSession
) -> AsyncIterator[Server]:
    port = free_port()
    client = Client(f"http://127.0.0.1:{port}", session)
    command = [sys.executable, "-m", MODULES[name], str(port)]
    output = folder / f"{name.replace(' ', '-')}.log"
    async with started(command, output, {**EVERYWHERE, **settings}) as child:

        async def up() -> bool:
            if not child.running:
                raise TooLateError(f"{name} ended:\n{child.tail()}")
            return (await client.ask("GET", "/health")).status == HTTPStatus.OK

        await until(up, READY_SECONDS, f"{name} ready")
        server = Server(name=name, client=client, child=child)
        try:
            yield server
        finally:
            server.resume()  # What stands still cannot end by itself.


@asynccontextmanager
async def listening(url: str, session: aiohttp.ClientSession) -> AsyncIterator[list[Server]]:
    """Take a service that runs already.

    Raises:
        BenchmarkError: nothing listens there, or it is not ready.

    """
    client = Client(url, session)
    answer = await client.ask("GET", "/health/ready")
    if not answer.status:
        raise BenchmarkError(f"nothing answers at {url}: {answer.error}")
    if answer.status != HTTPStatus.OK:
        said = answer.content[:200].decode(errors="replace")
        raise BenchmarkError(f"{url} is not ready: {answer.status} {said}")
    yield [Server(name=SERVICE, client=client)]


async def described(client: Client, route: str) -> dict[str, Any]:
    """Return what a route of the service says as JSON.

    Raises:
        BenchmarkError: it refuses the key, or says nothing of the kind.

    """
    answer = await client.ask("GET", route)
    if answer.status == HTTPStatus.UNAUTHORIZED:
        raise BenchmarkError(f"{client.url} refuses the key: 401 unauthorized {CURE}")
    if answer.status != HTTPStatus.OK or not answer.body:
        said = answer.error or f"status {answer.status}"
        raise BenchmarkError(f"{client.url}{route} does not answer as the service does: {said}")
    return answer.body
