"""The servers that take turns: the service, and those beside it."""

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from scripts.benchmark.client import Client
from scripts.benchmark.rows import BenchmarkError
from scripts.chart import EXTRA
from scripts.drill.child import Child, started
from scripts.drill.service import READY_SECONDS, service_in
from scripts.drill.wait import TooLateError, free_port, until

SERVICE: Final = "service"
PLAIN: Final = "plain diffusers"
LITSERVE: Final = "LitServe"
MODULES: Final = {
    PLAIN: "scripts.benchmark.plain_server",
    LITSERVE: "scripts.benchmark.litserve_server",
}
BESIDE: Final = {"plain": PLAIN, "litserve": LITSERVE}
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
}
"""Of all servers; threads that wait leave the cores to whose turn it is."""

OFF: Final = (
    *("API_KEYS", "API_KEYS_FILE", "FAULT_FILE"),
    *("RATE_LIMIT_PER_MINUTE", "QUOTA_IMAGES_PER_DAY"),
)
"""Settings that are as they come, whatever the environment says; all others are the user's."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How servers are started: all with the same model, threads and largest batch."""

    model: str
    threads: int
    batch: int
    queue: int
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server that listens."""

    name: str
    url: str
    client: Client
    child: Child | None = None
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

    def _each(self, what: Any) -> None:
        if self.child is None:
            return
        family = self.child.family()
        with contextlib.suppress(psutil.NoSuchProcess):
            # The id of one that has ended may be another's by now.
            family += [psutil.Process(self.child.pid)] if self.child.running else []
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                what(process)


def require(beside: tuple[str, ...]) -> None:
    """Insist that what is to be compared with is installed.

    Raises:
        BenchmarkError: names what is not, and how to install it.

    """
    if LITSERVE in beside and find_spec("litserve") is None:
        raise BenchmarkError(f"--compare: LitServe is not installed; {EXTRA} brings it")
    if beside and find_spec("diffusers") is None:
        raise BenchmarkError(f"--compare: diffusers is not installed; {EXTRA} brings it")


@asynccontextmanager
async def running(
    wanted: Wanted, folder: Path, session: aiohttp.ClientSession
) -> AsyncIterator[list[Server]]:
    """Start the service, and what is wanted beside it, one after the other; end them all.

    Raises:
        TooLateError: one does not come up; its last words.

    """
    environment = {
        **EVERYWHERE,
        **dict.fromkeys(OFF, ""),
        "MODEL_ID": wanted.model,
        "TORCH_THREADS": str(wanted.threads),
        "MAX_CONCURRENT_REQUESTS": str(wanted.batch),
        "QUEUE_SIZE": str(wanted.queue),
        "LOG_LEVEL": "INFO",
    }
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(service_in(folder, environment, limits={}))
        await service.start()
        servers = [Server(name=SERVICE, url=service.url, client=Client(session, service.url))]
        for name in wanted.beside:
            server = await stack.enter_async_context(_beside(name, wanted, folder, session))
            server.pause()
            servers.append(server)
        yield servers


@asynccontextmanager
async def _beside(
    name: str, wanted: Wanted, folder: Path, session: aiohttp.ClientSession
) -> AsyncIterator[Server]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [sys.executable, "-m", MODULES[name]]
    command += ["--model", wanted.model, "--port", str(port), "--threads", str(wanted.threads)]
    if name == LITSERVE:
        command += ["--batch", str(wanted.batch)]
    output = folder / f"{name.replace(' ', '-')}.log"
    async with started(command, output, {**EVERYWHERE, "LOG_LEVEL": "INFO"}) as child:

        async def up() -> bool:
            if not child.running:
                raise TooLateError(f"{name} ended:\n{child.tail()}")
            try:
                async with session.get(f"{url}/health") as answer:
                    return answer.status == HTTPStatus.OK
            except (aiohttp.ClientError, TimeoutError):
                return False

        await until(up, READY_SECONDS, f"{name} ready")
        server = Server(name=name, url=url, client=Client(session, url), child=child)
        try:
            yield server
        finally:
            server.resume()  # What stands still cannot end by itself.


@asynccontextmanager
async def listening(
    url: str, key: str, session: aiohttp.ClientSession
) -> AsyncIterator[list[Server]]:
    """Take a service that runs already.

    Raises:
        BenchmarkError: nothing listens there, or it is not ready.

    """
    try:
        async with session.get(f"{url}/health/ready") as answer:
            if answer.status != HTTPStatus.OK:
                said = await answer.text(errors="replace")
                raise BenchmarkError(f"{url} is not ready: {answer.status} {said[:200]}")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise BenchmarkError(
            f"nothing answers at {url}: {error or type(error).__name__}"
        ) from error
    yield [Server(name=SERVICE, url=url, client=Client(session, url, key))]


async def told(session: aiohttp.ClientSession, url: str, key: str, route: str) -> dict[str, Any]:
    """Return what a route of the service says as JSON.

    Raises:
        BenchmarkError: it says nothing of the kind.

    """
    headers = {"X-API-Key": key} if key else {}
    try:
        async with session.get(f"{url}{route}", headers=headers) as answer:
            if answer.status == HTTPStatus.UNAUTHORIZED:
                raise BenchmarkError(f"{url} refuses the key: 401 unauthorized {CURE}")
            answer.raise_for_status()
            body = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise BenchmarkError(
            f"{url}{route} does not answer as the service does: {error}"
        ) from error
    if not isinstance(body, dict):
        raise BenchmarkError(f"{url}{route} does not answer as the service does")
    return body
